"""Plain text, LJSpeech, folder and Asterisk layouts."""

import gzip
import unicodedata
from pathlib import Path

import pytest

from clvp_train.corpus import VCTK, Asterisk, Folder, LJSpeech, TextLines, Utterance
from tests.unit.corpus.conftest import fails


class TestTextLines:
    def test_reads_any_script(self, tmp_path):
        path = tmp_path / "lines.txt"
        decomposed = unicodedata.normalize("NFD", "Ça  va ?")
        path.write_bytes(b"\xef\xbb\xbf" + f"{decomposed}\r\n\n  你好。\u2028世界\t!\nशुभ प्रभात".encode())
        corpus = TextLines(str(path))
        expected = [
            Utterance("000001", "Ça va ?", None),
            Utterance("000003", "你好。 世界 !", None),
            Utterance("000004", "शुभ प्रभात", None),
        ]
        assert list(corpus) == expected
        assert list(corpus) == expected, "a corpus can be iterated again"
        assert corpus.name == "lines.txt"

    def test_reads_gzip(self, tmp_path):
        path = tmp_path / "lines.txt.gz"
        path.write_bytes(gzip.compress(b"One.\n"))
        assert [u.text for u in TextLines(str(path))] == ["One."]

    def test_not_utf8(self, tmp_path):
        path = tmp_path / "latin.txt"
        path.write_bytes(b"\xef\xbb\xbfgood\ncaf\xe9\n")
        fails(TextLines(str(path)), "latin.txt, line 2", "byte 11 is not UTF-8")
        assert path.read_bytes()[11] == 0xE9

    def test_broken_gzip(self, tmp_path):
        path = tmp_path / "lines.txt.gz"
        path.write_bytes(gzip.compress(b"One.\n" * 1000)[:-12])
        fails(TextLines(str(path)), "lines.txt.gz: cannot be read")

    def test_missing(self, tmp_path):
        fails(TextLines(str(tmp_path / "no.txt")), "no.txt: does not exist", "Set corpus.path")
        fails(TextLines(str(tmp_path)), "not a file", "Set corpus.path")

    @pytest.mark.parametrize("content", ["", "\n \n"])
    def test_empty(self, tmp_path, content):
        (tmp_path / "lines.txt").write_text(content)
        fails(TextLines(str(tmp_path / "lines.txt")), "lines.txt: the corpus has no utterances")

    def test_invisible_text_is_empty(self, tmp_path):
        (tmp_path / "lines.txt").write_text("One.\n\u200b\n", encoding="utf-8")
        fails(TextLines(str(tmp_path / "lines.txt")), "line 2", "transcript is empty")


class TestLJSpeech:
    @pytest.fixture
    def root(self, tmp_path, write_audio) -> Path:
        for id_ in ("LJ001-0001", "LJ001-0002", "LJ001-0003"):
            write_audio(tmp_path / "wavs" / f"{id_}.wav")
        self.write(
            tmp_path,
            'LJ001-0001|In 1455, he said "yes|In fourteen fifty-five, he said "yes',
            "LJ001-0002|Raw|",
            "LJ001-0003|Two",
        )
        return tmp_path

    def write(self, root: Path, *lines: str) -> None:
        (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def test_reads(self, root):
        first, second, third = LJSpeech(str(root))
        assert first == Utterance(
            "LJ001-0001", 'In fourteen fifty-five, he said "yes', str(root / "wavs/LJ001-0001.wav"), None
        )
        assert (second.text, third.text) == ("Raw", "Two")

    TEXTS = ("The gate was open.", "She closed it.", "A cafe by the river.", "It rained.")

    @pytest.mark.parametrize(
        ("values", "speakers"),
        [
            (("1.50", "1.50", "1.48", "1.52"), None),
            (("1.50", "1.50", "1.50", "1.50"), None),
            (("anna", "anna", "ben", "ben"), True),
            (("0", "0", "1", "1"), True),
            (("male1",) * 4, True),
            (("33075", "33076", "48000", "9"), None),
            (("ðə ɡeɪt wəz", "ʃi kloʊzd", "ə kæfeɪ baɪ", "ɪt reɪnd"), None),
            (("anna", "ben", "anna", ""), None),
        ],
    )
    def test_a_third_column_that_is_no_text(self, root, caplog, values, speakers):
        self.write(
            root, *(f"LJ001-000{1 + n % 3}|{text}|{value}" for n, (text, value) in enumerate(zip(self.TEXTS, values)))
        )
        rows = list(LJSpeech(str(root))._rows())
        assert [row.text for row in rows] == list(self.TEXTS)
        assert [row.speaker for row in rows] == (list(values) if speakers else [None] * 4)
        assert f"reading id|text|{'speaker' if speakers else 'ignored'}" in caplog.text

    @pytest.mark.parametrize(
        ("values", "texts"),
        [
            (("male1", "male1", "male2", "male2"), TEXTS),
            (("male1",) * 4, TEXTS),
            (("0", "1", "0", "1"), TEXTS),
            (("SSB0005", "SSB0005", "SSB0006", "SSB0006"), ("你好", "今天天气很好", "我喜欢喝茶", "你呢")),
        ],
    )
    def test_speakers_in_the_second_column(self, root, values, texts):
        self.write(root, *(f"wavs/LJ001-000{1 + n % 3}.wav|{value}|{texts[n]}" for n, value in enumerate(values)))
        rows = list(LJSpeech(str(root))._rows())
        assert [(row.speaker, row.text) for row in rows] == list(zip(values, texts))

    @pytest.mark.parametrize(
        ("raw", "normalised"),
        [
            ("In 1455, he said", "In fourteen fifty-five, he said"),
            ("5", "five"),
            ("你好,世界", "你好世界"),
            ("Dr.", ""),
        ],
    )
    def test_two_forms_of_a_text(self, root, raw, normalised):
        self.write(root, *(f"LJ001-000{n}|{raw}{n}|{normalised and normalised + str(n)}" for n in (1, 2, 3)))
        assert [u.text for u in LJSpeech(str(root))] == [f"{normalised or raw}{n}" for n in (1, 2, 3)]
        assert {u.speaker for u in LJSpeech(str(root))} == {None}

    @pytest.mark.parametrize(
        ("name", "file", "id_"),
        [
            ("1.wav", "wavs/1.wav", "1"),
            ("wavs/1.wav", "wavs/1.wav", "wavs/1"),
            ("ann/1", "wavs/ann/1.wav", "ann/1"),
            ("clips/1.flac", "clips/1.flac", "clips/1"),
            ("1", "wavs/1.WAV", "1"),
            ("1.wav", "wavs/1.flac", "1"),
            ("1.5", "wavs/1.5.ogg", "1.5"),
            ("1.wav", "wavs/1.wav.wav", "1.wav"),
        ],
    )
    def test_ids_with_suffixes_and_folders(self, tmp_path, write_audio, name, file, id_):
        write_audio(tmp_path / file)
        self.write(tmp_path, f"{name}|The gate was open.", "", " ")
        assert list(LJSpeech(str(tmp_path))) == [Utterance(id_, "The gate was open.", str(tmp_path / file))]

    def test_relative_root(self, root, monkeypatch):
        monkeypatch.chdir(root.parent)
        assert next(iter(LJSpeech(root.name))).audio == str(root / "wavs/LJ001-0001.wav")

    def test_missing(self, root):
        fails(LJSpeech(str(root / "none")), "none: does not exist", "Set corpus.root")
        fails(LJSpeech(str(root / "wavs")), "metadata.csv: does not exist", "Set corpus.root")

    def test_bad_rows(self, root):
        good = "LJ001-0001|One|one"
        self.write(root, good, "LJ001-0002| | ")
        fails(LJSpeech(str(root)), "metadata.csv, line 2", "transcript is empty")
        self.write(root, good, "LJ001-0002")
        fails(LJSpeech(str(root)), "metadata.csv, line 2", "1 fields", "Write id|raw text|normalised text")
        self.write(root, good, good)
        fails(LJSpeech(str(root)), "line 2", "duplicate id 'LJ001-0001'", "line 1")
        self.write(root, good, "|text|text")
        fails(LJSpeech(str(root)), "line 2", "id is empty")
        self.write(root, good, "LJ9|Gone|gone")
        fails(LJSpeech(str(root)), "line 2", "LJ9.wav does not exist")


class TestFolder:
    def put(self, root: Path, name: str, text: str, write_audio) -> None:
        audio = write_audio(root / name)
        audio.with_suffix(".txt").write_text(text, encoding="utf-8")

    def test_reads(self, tmp_path, write_audio):
        for name in ("zoë/2/b.flac", "ann/a.WAV", "ann/c.ogg", "top.mp3"):
            self.put(tmp_path, name, f"This is\n{name}.\n", write_audio)
        (tmp_path / "README.txt").write_text("about")
        (tmp_path / "ann" / "._a.wav").write_text("Finder's")
        corpus = Folder(str(tmp_path))
        assert [(u.id, u.speaker) for u in corpus] == [
            ("ann/a", "ann"),
            ("ann/c", "ann"),
            ("top", None),
            ("zoë/2/b", "zoë"),
        ]
        assert next(iter(corpus)) == Utterance("ann/a", "This is ann/a.WAV.", str(tmp_path / "ann/a.WAV"), "ann")

    def test_errors(self, tmp_path, write_audio):
        fails(Folder(str(tmp_path / "none")), "none: does not exist", "Set corpus.root")
        fails(Folder(str(tmp_path)), "has no utterances")
        self.put(tmp_path, "a.wav", "fine", write_audio)
        write_audio(tmp_path / "b.wav")
        fails(Folder(str(tmp_path)), "b.wav: no transcript", "Add b.txt")
        (tmp_path / "b.txt").write_text(" \n")
        fails(Folder(str(tmp_path)), "b.txt", "transcript is empty")
        (tmp_path / "b.txt").write_text("b")
        (tmp_path / "c.txt").write_text("c")
        fails(Folder(str(tmp_path)), "c.txt: no audio file", "Add c.wav")
        (tmp_path / "c.txt").unlink()
        write_audio(tmp_path / "b.flac")
        assert [u.audio for u in Folder(str(tmp_path))][1] == str(tmp_path / "b.wav"), "one of two recordings"

    @pytest.mark.parametrize(
        ("audio", "transcripts"),
        [
            ("84/1/84_1_0.wav", {"84/1/84_1_0.normalized.txt": "{}", "84/1/84_1_0.original.txt": "raw", "84/1/84_1.trans.tsv": ""}),
            ("84/1/84_1_0.wav", {"84/1/84_1_0.original.txt": "{}"}),
            ("84/1/84-1-0.flac", {"84/1/84-1.trans.txt": "84-1-9 NO\n\n84-1-0 {}\n", "SPEAKERS.TXT": "", "BOOKS.txt": ""}),
            ("84/1/84-1-0.flac", {"84/1/84-1.trans.txt": "84-1-0\t{}"}),
            ("clip5.wav", {"clip5.wav.txt": "{}"}),
            ("a/clip5.mp3", {"a/clip5.mp3.txt": "{}", "a/NOTES.TXT": "no transcript"}),
            ("CLIP7.WAV", {"CLIP7.TXT": "{}"}),
            ("x.original.wav", {"x.original.txt": "{}"}),
            ("v1.2.wav", {"v1.2.txt": "{}"}),
            ("ann/a.aiff", {"ann/a.txt": "{}"}),
            ("ann/a.caf", {"ann/a.txt": "{}", "ann/._a.txt": "Finder's", "__MACOSX/b.txt": "Finder's"}),
        ],
    )  # fmt: skip
    def test_layouts(self, tmp_path, write_audio, audio, transcripts):
        write_audio(tmp_path / audio)
        for name, content in transcripts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content.format("The gate."))
        speaker = audio.split("/")[0] if "/" in audio else None
        id_ = audio.rpartition(".")[0]
        assert list(Folder(str(tmp_path))) == [Utterance(id_, "The gate.", str(tmp_path / audio), speaker)]

    @pytest.mark.parametrize("suffix", ["opus", "m4a", "wma"])
    def test_suffixes_that_soundfile_does_not_write(self, tmp_path, suffix):
        for name in (f"a.{suffix}", "film.mp4"):
            (tmp_path / name).write_bytes(b"sound")
        (tmp_path / "a.txt").write_text("The gate.")
        assert [u.audio for u in Folder(str(tmp_path))] == [str(tmp_path / f"a.{suffix}")]


class TestVCTK:
    @pytest.mark.parametrize("audio", ["wav48/p225/p225_001.wav", "wav48_silence_trimmed/p225/p225_001_mic{}.flac"])
    @pytest.mark.parametrize("microphone", [1, 2])
    def test_reads(self, tmp_path, write_audio, audio, microphone):
        for name in (audio.format(1), audio.format(2), audio.replace("001", "009").format(1)):
            write_audio(tmp_path / name)
        for name in ("p225_001", "p225_010"):  # one without transcript, one without recording
            (tmp_path / "txt/p225").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"txt/p225/{name}.txt").write_text("The gate.\n")
        expected = [Utterance("p225/p225_001", "The gate.", str(tmp_path / audio.format(microphone)), "p225")]
        assert list(VCTK(str(tmp_path), microphone)) == expected
        fails(Folder(str(tmp_path)), "VCTK's layout. Set corpus=vctk")
        fails(VCTK(str(tmp_path / "txt")), "no folders txt and wav48")


class TestAsterisk:
    def test_reads(self, tmp_path, write_audio):
        for id_ in ("added", "beep", "digits/1", "letters/at", "silence/1", "joined"):
            write_audio(tmp_path / f"{id_}.wav")
        prompts = tmp_path / "prompts.txt"
        prompts.write_text(
            "; A comment: here\n\nadded: Added: yes.\nbeep: [a beep]\ndigits/1: one\nletters/at: at [@]\n"
            "silence/1: (1 second)\njoined: <beep>\nno-wav: Hello.\n"
        )
        assert [(u.id, u.text, u.speaker) for u in Asterisk(str(tmp_path), str(prompts))] == [
            ("added", "Added: yes.", "allison"),
            ("digits/1", "one", "allison"),
            ("letters/at", "at", "allison"),
        ]
        prompts.write_text("added:\n")
        fails(Asterisk(str(tmp_path), str(prompts)), "line 1", "transcript is empty")
        prompts.write_text("added\n")
        fails(Asterisk(str(tmp_path), str(prompts)), "line 1", "no colon")

    def test_missing_package(self, tmp_path):
        needed = "apt-get install asterisk-core-sounds-en asterisk-core-sounds-en-wav"
        fails(Asterisk(root=str(tmp_path / "none")), "corpus.root=", needed)
        fails(
            Asterisk(str(tmp_path), str(tmp_path / "none.txt")),
            "none.txt: does not exist",
            needed,
            "corpus.transcripts",
        )

    @pytest.mark.skipif(
        not (Path(Asterisk.root).exists() and Path(Asterisk.transcripts).exists()),
        reason="Debian package not installed",
    )
    def test_debian_package(self):
        utterances = list(Asterisk())
        assert len(utterances) == 551
        assert utterances[0].text == "Activated."
        assert not [u for u in utterances if set(u.text) & set("[]<>()")]
