"""Tar shards: what is found in them, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condvae.data import DataConfig, prepare_images
from condvae.data.formats import webdataset
from condvae.data.sources import open_source
from condvae.ground.configuration import ConfigurationError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)


def encode(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, members, kind=tarfile.USTAR_FORMAT):
    """Members are (name, content), or TarInfo for what has no content."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def samples(numbers, label=lambda i: b"%d" % (i % 3)):
    """A picture and a label for each number."""
    pairs = [[(f"{i:03d}.png", encode(PIXELS[i])), (f"{i:03d}.cls", label(i))] for i in numbers]
    return list(itertools.chain(*pairs))


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def open_shards(folder, **options):
    return open_source(DataConfig(source="webdataset", path=str(folder), **options))


def read_all(source):
    return list(source.read(range(source.count)))


class TestContent:
    def test_pictures_come_in_the_order_of_shards_and_members(self, tmp_path):
        write_tar(tmp_path / "b-1.tar", samples([3, 0, 7]))
        write_tar(tmp_path / "a-2.tar", samples([5, 4]))
        source = open_shards(tmp_path)
        assert source.count == 5
        assert source.class_names == ("0", "1", "2")
        images = read_all(source)
        numbers = [5, 4, 3, 0, 7]
        np.testing.assert_array_equal([image.pixels for image in images], PIXELS[numbers])
        assert [image.label for image in images] == [number % 3 for number in numbers]
        shards = ["a-2.tar"] * 2 + ["b-1.tar"] * 3
        origins = [f"{shard}/{i:03d}.png" for shard, i in zip(shards, numbers, strict=True)]
        assert [image.origin for image in images] == origins
        assert [image.origin for image in source.read([1, 4])] == [origins[1], origins[4]]

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
    def test_formats_are_decoded(self, tmp_path, kind):
        content = encode(PIXELS[0], kind)
        write_tar(tmp_path / "a.tar", [(f"x.{kind.lower()}", content)])
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(read_all(open_shards(tmp_path))[0].pixels, expected)

    @pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_keys_end_at_the_first_dot_of_the_last_part(self, tmp_path, kind):
        content, long = encode(PIXELS[0]), "/".join(["long" * 20] * 2)
        ignored = ["v1.0/a.seg.png", "b.txt", ".hidden.png", "c/._d.png", "no_ending"]
        names = ["./v1.0/a.png", "B.JPG", f"{long}/e.png"]
        members = [(name, content) for name in (*ignored, *names)]
        members += [("v1.0/a.cls", b"1"), ("B.Cls", b" 2\n"), (f"{long}/e.json", b'{"label": 3}')]
        write_tar(tmp_path / "a.tar", [special("v1.0", tarfile.DIRTYPE), *members], kind)
        found = {image.origin: image.label for image in read_all(open_shards(tmp_path))}
        assert found == {"a.tar/v1.0/a.png": 1, "a.tar/B.JPG": 2, f"a.tar/{long}/e.png": 3}

    def test_descriptions_without_a_label_are_no_labels(self, tmp_path):
        texts = [{"caption": "a dog"}, ["a dog"], {"label": None}]
        members = [(f"{i}.json", json.dumps(text).encode()) for i, text in enumerate(texts)]
        members += [(f"{i}.png", encode(PIXELS[i])) for i in range(3)]
        write_tar(tmp_path / "a.tar", members)
        source = open_shards(tmp_path)
        assert [image.label for image in read_all(source)] == [None] * 3
        assert source.class_names == ()

    def test_the_same_key_in_two_shards_is_two_pictures(self, tmp_path):
        write_tar(tmp_path / "a.tar", [("x.png", encode(PIXELS[0]))])
        write_tar(tmp_path / "b.tar", [("x.png", encode(PIXELS[1]))])
        images = read_all(open_shards(tmp_path))
        np.testing.assert_array_equal([image.pixels for image in images], PIXELS[:2])


class TestEffort:
    def test_counting_reads_headers_and_labels_only(self, tmp_path, monkeypatch):
        noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        members = [(f"{i}.{kind}", content) for i in range(4) for kind, content in
                   (("png", encode(noise)), ("cls", b"0"))]  # fmt: skip
        path = write_tar(tmp_path / "a.tar", members)
        asked = []
        read = webdataset._HeaderReader.read
        monkeypatch.setattr(
            webdataset._HeaderReader,
            "read",
            lambda self, size: asked.append(size) or read(self, size),
        )
        assert open_shards(tmp_path).count == 4
        # The last two requests are for what follows the last member.
        assert asked[-2:] == [webdataset.CHUNK] * 2
        assert sum(asked[:-2]) < 20_000
        assert path.stat().st_size > 1_000_000

    def test_what_is_prepared_is_not_counted_again(self, tmp_path, monkeypatch):
        write_tar(tmp_path / "raw" / "a.tar", samples(range(20)))
        config = DataConfig(
            name="s", source="webdataset", path=str(tmp_path / "raw"), image_size=6, channels=3,
            validation_share=0.3, test_share=0.3,
        )  # fmt: skip
        first = prepare_images(config, tmp_path / "store")
        with monkeypatch.context() as patch:
            patch.setattr(webdataset, "index_shard", None)
            assert prepare_images(config, tmp_path / "store").fingerprint == first.fingerprint
        write_tar(tmp_path / "raw" / "b.tar", samples(range(20, 22)))
        assert len(prepare_images(config, tmp_path / "store").records) == 22


def prepared(tmp_path, source, path, **options):
    config = DataConfig(
        name="s", source=source, path=str(path), image_size=6, channels=3, validation_share=0.3,
        test_share=0.3, **options,
    )  # fmt: skip
    return config, tmp_path / "stores" / f"{source}{len(options)}"


@pytest.mark.parametrize("limit", [None, 25])
def test_the_store_is_that_of_the_same_files(tmp_path, limit):
    for i in range(40):
        path = tmp_path / "files" / f"{i // 16}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(PIXELS[i]))
    for shard in range(3):
        numbers = range(shard * 16, min(40, shard * 16 + 16))
        write_tar(
            tmp_path / "shards" / f"{shard}.tar", samples(numbers, lambda i: b"%d" % (i // 16))
        )
    stores = [
        prepare_images(*prepared(tmp_path, source, tmp_path / folder, limit=limit))
        for source, folder in (("image_folder", "files"), ("webdataset", "shards"))
    ]
    assert stores[0].images_sha256 == stores[1].images_sha256
    for one, other in zip(stores[0].records, stores[1].records, strict=True):
        assert one == dataclasses.replace(other, origin=one.origin)


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("condvae.data.unfinished.COMMIT_ROWS", 7)
    members = [samples(range(20)), samples(range(20, 40))]
    members[0][6] = ("003.png", b"no picture")
    for number, each in enumerate(members):
        write_tar(tmp_path / "raw" / f"{number}.tar", each)
    config, _ = prepared(tmp_path, "webdataset", tmp_path / "raw", unreadable="skip")
    expected = prepare_images(config, tmp_path / "undisturbed")
    asked, read = [], webdataset.WebDatasetSource.read

    def cut_off(self, chosen):
        asked.append(list(chosen))
        for done, image in enumerate(read(self, chosen)):
            if done == 24 and len(asked) == 1:
                raise KeyboardInterrupt
            yield image

    monkeypatch.setattr(webdataset.WebDatasetSource, "read", cut_off)
    with pytest.raises(KeyboardInterrupt):
        prepare_images(config, tmp_path / "store")
    found = prepare_images(config, tmp_path / "store")
    assert asked == [list(range(40)), list(range(22, 40))]
    assert found.fingerprint == expected.fingerprint
    assert found.unreadable_skipped == ("0.tar/003.png",)


class TestFaults:
    def bomb():
        """A PNG of a few bytes that claims 2^30 pixels."""
        content = bytearray(encode(PIXELS[0]))
        content[16:24] = (2**15).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        return bytes(content)

    FAULTS = (
        ([("x.png", b"no picture"), ("x.cls", b"1")], "cannot be read as an image"),
        ([("x.png", encode(PIXELS[0])[:60]), ("x.cls", b"1")], "cannot be read as an image"),
        ([("x.png", bomb()), ("x.cls", b"1")], "decompression bomb"),
        ([("x.png", b""), ("x.cls", b"1")], "0 bytes"),
        ([("x.png", b"1"), ("x.jpg", b"2"), ("x.cls", b"1")], "'x.png' and 'x.jpg'"),
        ([("x.png", b"1"), ("x.png", b"2"), ("x.cls", b"1")], "two pictures of one key"),
        ([("x.png", encode(PIXELS[0])), ("x.cls", b"dog")], "label b'dog'"),
        ([("x.png", encode(PIXELS[0])), ("x.cls", b"-1")], "label -1"),
        ([("x.png", encode(PIXELS[0])), ("x.cls", b"9" * 30)], "expected 0 to 999999"),
        ([("x.png", encode(PIXELS[0])), ("x.cls", b"9" * 5000)], "expected 0 to 999999"),
        ([("x.png", encode(PIXELS[0])), ("x.json", b'{"label": 1')], "'x.json' has label"),
        ([("x.png", encode(PIXELS[0])), ("x.json", b'{"label": true}')], "label True"),
        ([("x.png", encode(PIXELS[0])), ("x.json", b'{"label": 1.0}')], "label 1.0"),
        ([("x.png", encode(PIXELS[0])), ("x.json", b"[" * 100_000)], "'x.json' has label"),
        (
            [("x.png", encode(PIXELS[0])), ("x.cls", b"1"), ("x.json", b'{"label": 2}')],
            "'x.json' has label 2, another member 1",
        ),
    )

    @pytest.mark.parametrize(("members", "message"), FAULTS)
    def test_they_stop_or_are_skipped(self, tmp_path, members, message, caplog):
        write_tar(tmp_path / "a.tar", [*samples([1]), *members, *samples([2])])
        with pytest.raises(ConfigurationError) as error:
            read_all(open_shards(tmp_path))
        for part in ("a.tar: member 'x.png'", message, "unreadable: skip"):
            assert part in str(error.value)
        source = open_shards(tmp_path, unreadable="skip")
        images = read_all(source)
        np.testing.assert_array_equal([image.pixels for image in images], PIXELS[[1, 2]])
        assert source.unreadable == ["a.tar/x.png"]
        assert source.count == 3
        assert message in caplog.text

    @pytest.mark.parametrize("unreadable", ["stop", "skip"])
    def test_labels_for_some_are_refused(self, tmp_path, unreadable):
        write_tar(tmp_path / "a.tar", samples([0, 1]))
        write_tar(tmp_path / "b.tar", [("x.png", encode(PIXELS[2])), *samples([3])])
        with pytest.raises(
            ConfigurationError, match=r"1 of 4 pictures have no label \(b.tar/x.png\)"
        ):
            _ = open_shards(tmp_path, unreadable=unreadable).count

    @pytest.mark.parametrize(
        "member",
        [
            special("x.png", tarfile.SYMTYPE, "/etc/passwd"),
            special("x.png", tarfile.LNKTYPE, "001.png"),
            special("x.png", tarfile.CHRTYPE),
            special("x.png", tarfile.FIFOTYPE),
            special("x.png", tarfile.GNUTYPE_SPARSE),
            ("/x.png", encode(PIXELS[0])),
            ("../x.png", encode(PIXELS[0])),
            ("a/../../x.png", encode(PIXELS[0])),
            ("a\\x.png", encode(PIXELS[0])),
            ("a\x1b[2Jx.png", encode(PIXELS[0])),
            ("x.cls", b"1"),
        ],
        ids=lambda member: str(getattr(member, "type", None) or member[0]),
    )
    def test_what_is_no_plain_picture_is_ignored_with_a_warning(self, tmp_path, member, caplog):
        write_tar(tmp_path / "raw" / "a.tar", [*samples([1]), member, *samples([2])])
        source = open_shards(tmp_path / "raw")
        np.testing.assert_array_equal([i.pixels for i in read_all(source)], PIXELS[[1, 2]])
        assert "a.tar: ignored 1 members" in caplog.text
        assert "\x1b" not in caplog.text
        assert [path.name for path in tmp_path.rglob("*")] == ["raw", "a.tar"]

    def test_missing_shards_are_named(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"nowhere'.*no such folder"):
            open_shards(tmp_path / "nowhere")
        (tmp_path / ".a.tar").touch()
        with pytest.raises(ConfigurationError, match=r"no shards; expected files \*\.tar"):
            open_shards(tmp_path)
        with pytest.raises(ConfigurationError, match="provide_pictures"):
            open_shards("https://host/a.tar")

    @pytest.mark.parametrize("content", [b"", b"x" * 5000, bytes(10240), b"\x1f\x8b" + bytes(600)])
    @pytest.mark.parametrize("unreadable", ["stop", "skip"])
    def test_a_shard_of_nothing_is_refused(self, tmp_path, content, unreadable):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"a\.tar: no pictures in it"):
            _ = open_shards(tmp_path, unreadable=unreadable).count


class TestDamage:
    def test_a_shard_cut_anywhere_stops_or_gives_what_is_whole(self, tmp_path):
        path = write_tar(tmp_path / "a.tar", samples(range(6)))
        content = path.read_bytes()
        with tarfile.open(path) as tar:
            ends = [info.offset_data + info.size for info in tar][1::2]
            end_of_members = tar.offset
        # Every kind of place: in headers, in data, in padding, between members.
        for cut in [*range(600, end_of_members, 151), *range(512, end_of_members + 1, 512)]:
            path.write_bytes(content[:cut])
            with pytest.raises(ConfigurationError, match=r"a\.tar:"):
                read_all(open_shards(tmp_path))
            source = open_shards(tmp_path, unreadable="skip")
            found = read_all(source)
            # Of the last key nobody can say whether it is whole.
            whole = sum(end <= cut for end in ends)
            assert whole - 1 <= len(found) <= whole, cut
            np.testing.assert_array_equal(
                [i.pixels for i in found], PIXELS[: len(found)] if found else []
            )
            assert len(found) + len(source.unreadable) == source.count

    @pytest.mark.parametrize("extra", ["garbage", "another archive"])
    def test_what_follows_the_end_is_not_lost_unnoticed(self, tmp_path, extra, caplog):
        path = write_tar(tmp_path / "a.tar", samples([1, 2]))
        more = write_tar(tmp_path / "more", samples([3])).read_bytes()
        path.write_bytes(path.read_bytes() + (more if extra == "another archive" else b"x"))
        with pytest.raises(ConfigurationError, match="something follows the end"):
            read_all(open_shards(tmp_path))
        assert len(read_all(open_shards(tmp_path, unreadable="skip"))) == 1
        assert "something follows the end" in caplog.text

    @pytest.mark.parametrize("size", [-1024, -512, 2**40, 2**63, 2**80])
    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
    def test_forged_sizes_end_in_an_error(self, tmp_path, size, kind):
        path = write_tar(tmp_path / "a.tar", samples([1, 2]))
        header = bytearray(special("x.png", kind).tobuf(tarfile.GNU_FORMAT))
        number = size % 256**12
        header[124:136] = number.to_bytes(12, "big")
        header[124] = 0xFF if size < 0 else 0x80
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content = path.read_bytes()
        with tarfile.open(path) as tar:
            end = len(tar.getmembers()) and tar.offset
        path.write_bytes(content[:end] + bytes(header) + bytes(1024))
        with pytest.raises(ConfigurationError, match=r"a\.tar:.*cut short or damaged"):
            _ = open_shards(tmp_path).count
        assert len(read_all(open_shards(tmp_path, unreadable="skip"))) in (1, 2)

    def test_an_enormous_picture_is_not_read(self, tmp_path):
        path = tmp_path / "a.tar"
        info = tarfile.TarInfo("x.png")
        info.size = 2**29
        with path.open("wb") as file:  # sparse on the disk
            file.write(info.tobuf())
            file.truncate(512 + info.size + 10240)
        with pytest.raises(ConfigurationError, match=r"'x\.png': 536870912 bytes; expected 1 to"):
            _ = open_shards(Path(tmp_path)).count
