"""Voices for the AR: a folder of clips or the speakers of a corpus. Shapes: D width."""

import heapq
import logging
from collections import defaultdict
from pathlib import Path

import torch

from clvp_train.corpus import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES, Corpus, Utterance, is_clutter
from clvp_train.errors import UserError
from clvp_train.pairs.sources import UNKNOWN, BadRows, load_recording
from clvp_train.tortoise import FrozenTortoise

SPARE_CLIPS = 16  # per speaker, in case longer clips cannot be read
log = logging.getLogger(__name__)


def folder_voices(folder: str | Path, setting: str = "codes.voices") -> dict[str, list[Path]]:
    """The clips of each voice, by subfolder. `setting` names the folder in messages.

    Raises:
        UserError: the folder does not exist or contains no clip.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{setting}={folder}: not a directory. Set it to a folder with a subfolder of clips per voice.")
    voices = {}
    for voice in sorted(path for path in Path(folder).iterdir() if path.is_dir() and not is_clutter(path.name)):
        files = [path for path in sorted(voice.iterdir()) if not is_clutter(path.name)]
        clips = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
        for path in files:
            if path.suffix.lower() in OTHER_AUDIO_SUFFIXES:
                log.warning("%s: not a format of libsndfile, clip ignored. Convert it to wav or flac", path)
        if clips:
            voices[voice.name] = clips
        else:
            log.warning("%s: no wav, flac, ogg, opus or mp3 file, voice ignored", voice)
    if not voices:
        raise UserError(f"{setting}={folder}: contains no voice. Create a subfolder of wav or flac clips per voice.")
    return voices


class CorpusVoices:
    """The voice of each speaker, from its longest readable recordings.

    No audio is kept in memory: one pass over the corpus notes the longest clips, later ones encode them.

    Args:
        clips_per_voice: number of clips whose conditioning latents are averaged.
    """

    def __init__(self, clips_per_voice: int) -> None:
        self.clips_per_voice = clips_per_voice
        self._longest: dict[str, list[tuple[int, int]]] = defaultdict(list)  # heaps of (bytes, -number)

    def inspect(self, number: int, utterance: Utterance) -> None:
        """Notes the recording of an utterance. Raises UserError if it has none."""
        if utterance.audio is None:
            raise UserError(
                f"utterance {utterance.id}: no audio, but codes.voices=corpus needs recordings. Set codes.voices to a folder."
            )
        clips, clip = self._longest[utterance.speaker or UNKNOWN], (_size(utterance.audio), -number)
        if len(clips) < self.clips_per_voice + SPARE_CLIPS:
            heapq.heappush(clips, clip)
        else:
            heapq.heappushpop(clips, clip)

    def noted(self) -> dict[str, list[tuple[int, int]]]:
        """What `inspect` has noted, for `note`."""
        return dict(self._longest)

    def note(self, noted: dict[str, list[tuple[int, int]]]) -> None:
        self._longest.update({voice: [(size, number) for size, number in clips] for voice, clips in noted.items()})

    def latents(self, tortoise: FrozenTortoise, corpus: Corpus, bad: BadRows) -> dict[str, torch.Tensor]:
        """The latent (D,) of each speaker with a readable clip, and a warning for each unreadable one."""
        clips = {
            voice: [-number for _, number in sorted(longest, reverse=True)] for voice, longest in self._longest.items()
        }
        latents_of: dict[str, dict[int, torch.Tensor]] = {voice: {} for voice in clips}
        tried = dict.fromkeys(clips, 0)
        while True:
            wanted: dict[int, str] = {}
            for voice, numbers in clips.items():
                upto = tried[voice] + self.clips_per_voice - len(latents_of[voice])  # replaces unreadable clips
                wanted |= dict.fromkeys(numbers[tried[voice] : upto], voice)
                tried[voice] = min(upto, len(numbers))
            if not wanted:
                break
            for number, utterance in corpus.stream(wanted.__contains__):
                try:
                    clip = load_recording(utterance, bad.warn)
                except UserError as error:
                    bad.warn(f"no clip of voice {wanted[number]}: {error}")
                else:
                    latents_of[wanted[number]][number] = tortoise.conditioning_latent([clip])
        return {
            voice: torch.stack([latents[number] for number in clips[voice] if number in latents]).mean(dim=0)
            for voice, latents in latents_of.items()
            if latents
        }


def _size(clip: str | bytes) -> int:
    return len(clip) if isinstance(clip, bytes) else Path(clip).stat().st_size
