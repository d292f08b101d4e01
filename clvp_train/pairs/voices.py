"""Voices for the AR: a folder of clips, or the speakers of a corpus. Shapes: D width."""

import heapq
import logging
from collections import defaultdict
from pathlib import Path

import torch

from clvp_train.corpus import Corpus, Utterance
from clvp_train.errors import UserError
from clvp_train.pairs.bad_rows import BadRows
from clvp_train.pairs.sources import UNKNOWN, clip_name
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
SPARE_CLIPS = 16  # of each speaker, in case longer ones cannot be read
log = logging.getLogger(__name__)


def folder_voices(folder: str | Path, setting: str = "codes.voices") -> dict[str, list[Path]]:
    """The clips of each voice, by subfolder. `setting` is what a user calls the folder.

    Raises:
        UserError: there is no such folder, or no clip in it.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{setting}={folder} is no folder: give one with a subfolder of clips for each voice")
    found = {}
    for voice in sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith(".")):
        clips = [path for path in sorted(voice.iterdir()) if path.suffix.lower() in AUDIO_SUFFIXES]
        if clips:
            found[voice.name] = clips
        else:
            log.warning("%s holds no wav, flac, ogg or mp3 file: there is no such voice", voice)
    if not found:
        raise UserError(f"{setting}={folder} holds no voice: make a subfolder of wav or flac clips for each")
    return found


class CorpusVoices:
    """Each speaker's voice, from the longest of its recordings that can be read. No audio is held: the longest clips are noted
    in one pass over the corpus, and heard in another.

    Args:
        clips_per_voice: how many clips' latents are averaged.
    """

    def __init__(self, clips_per_voice: int) -> None:
        self.clips_per_voice = clips_per_voice
        self._longest: dict[str, list[tuple[int, int]]] = defaultdict(list)  # heaps of (bytes, - number)

    def look_at(self, number: int, utterance: Utterance) -> None:
        """Notes an utterance's recording.

        Raises:
            UserError: it has none.
        """
        if utterance.audio is None:
            raise UserError(
                f"utterance {utterance.id} has no audio, so codes.voices=corpus has no voice: give a folder"
            )
        clips, clip = self._longest[utterance.speaker or UNKNOWN], (_size(utterance.audio), -number)
        if len(clips) < self.clips_per_voice + SPARE_CLIPS:
            heapq.heappush(clips, clip)
        else:
            heapq.heappushpop(clips, clip)

    def latents(self, tortoise: FrozenTortoise, corpus: Corpus, bad: BadRows) -> dict[str, torch.Tensor]:
        """(D,) of each speaker with a clip that can be read; of the others a warning."""
        clips = {
            voice: [-place for _, place in sorted(longest, reverse=True)] for voice, longest in self._longest.items()
        }
        heard: dict[str, dict[int, torch.Tensor]] = {voice: {} for voice in clips}
        tried = dict.fromkeys(clips, 0)
        while True:
            wanted: dict[int, str] = {}
            for voice, numbers in clips.items():
                upto = tried[voice] + self.clips_per_voice - len(heard[voice])
                wanted |= dict.fromkeys(numbers[tried[voice] : upto], voice)
                tried[voice] = min(upto, len(numbers))
            if not wanted:
                break
            for number, utterance in corpus.stream(wanted.__contains__):
                try:
                    clip = load_audio(utterance.audio or b"", clip_name(utterance))
                except UserError as error:
                    bad.warn(f"no clip of voice {wanted[number]}: {error}")
                else:
                    heard[wanted[number]][number] = tortoise.conditioning_latent([clip])
        return {
            voice: torch.stack([latents[number] for number in clips[voice] if number in latents]).mean(dim=0)
            for voice, latents in heard.items()
            if latents
        }


def _size(clip: str | bytes) -> int:
    return len(clip) if isinstance(clip, bytes) else Path(clip).stat().st_size
