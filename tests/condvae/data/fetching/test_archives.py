from __future__ import annotations

import gc
import gzip
import io
import itertools
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest

from condvae.data.fetching import archives
from condvae.data.fetching.archives import ArchiveError, Limits, Unpacker

NOISE = os.urandom(200_000)
MEMBERS = [("top/a.png", b"first"), ("top/sub/b.png", NOISE), ("c.txt", b""), ("d", b"x" * 512)]


@pytest.fixture
def unpack(tmp_path):
    """Unpacks bytes as an archive of a given name; returns what is in the folder afterwards."""

    def run(content, name="set.tar.gz", limits=None, **options):
        (tmp_path / name).write_bytes(content)
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        Unpacker(folder, limits).unpack(tmp_path / name, **options)
        return contents(folder)

    return run


def contents(folder):
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def linked(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.tar"])
def test_tar(unpack, make_tar, name):
    folder = special("empty", tarfile.DIRTYPE)
    content = make_tar([special("./", tarfile.DIRTYPE), folder, *MEMBERS], compressed="g" in name)
    assert unpack(content, name) == dict(MEMBERS)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_of_every_format_with_long_names(unpack, form):
    name = "/".join(["a" * 60] * 3)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert unpack(buffer.getvalue(), "set.tar") == {name: b"abc"}


def test_tar_made_by_the_programme_of_that_name(unpack, tmp_path):
    source = tmp_path / "source"
    for name, content in MEMBERS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    assert os.system(f"cd {source} && tar -czf ../made.tar.gz .") == 0
    assert unpack((tmp_path / "made.tar.gz").read_bytes()) == dict(MEMBERS)


def test_zip(unpack, make_zip):
    content = make_zip([("empty/", b""), *MEMBERS])
    assert unpack(content, "set.zip") == dict(MEMBERS)


def test_stored_zip(unpack):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", NOISE)
    assert unpack(buffer.getvalue(), "set.zip") == {"a": NOISE}


def test_gz_of_one_file(unpack):
    assert unpack(gzip.compress(NOISE), "train-images-idx3-ubyte.gz") == {
        "train-images-idx3-ubyte": NOISE
    }


def test_other_kinds_are_not_unpacked(unpack):
    with pytest.raises(ArchiveError, match=r"set\.rar: expected a name that ends in \.tar"):
        unpack(b"Rar!", "set.rar")


def test_empty_folders_and_modes(unpack, make_tar, tmp_path):
    info = special("shut", tarfile.DIRTYPE)
    info.mode = 0
    program = tarfile.TarInfo("program")
    program.mode = 0o6755
    program.uid = program.gid = 12345
    unpack(make_tar([info, program, ("shut/a", b"a")]))
    assert (tmp_path / "folder" / "shut" / "a").read_bytes() == b"a"
    status = (tmp_path / "folder" / "program").stat()
    assert stat.S_IMODE(status.st_mode) & 0o7111 == 0
    assert status.st_uid == os.getuid()


EVIL_NAMES = [
    ("../out", "leads out"),
    ("a/../../out", "leads out"),
    ("/tmp/condvae-out", "an absolute path"),
    ("C:/out", "an absolute path"),
    (r"..\out", "does not belong"),
    (r"C:\out", "an absolute path"),
]


@pytest.mark.parametrize(("name", "reason"), EVIL_NAMES)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_members_that_lead_out(unpack, make_tar, make_zip, tmp_path, name, reason, kind):
    make = make_zip if kind == "zip" else make_tar
    with pytest.raises(ArchiveError, match=rf"set\.{kind}: member .*{reason}"):
        unpack(make([("good", b"good"), (name, b"evil")]), f"set.{kind}")
    assert everything(tmp_path) == ["folder", "folder/good", f"set.{kind}"]
    assert not os.path.exists("/tmp/condvae-out")


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (special("link", tarfile.SYMTYPE, "../../etc"), r"a link to '\.\./\.\./etc'"),
        (special("link", tarfile.SYMTYPE, "good"), "a link to 'good'"),
        (special("link", tarfile.LNKTYPE, "/etc/passwd"), "a link to '/etc/passwd'"),
        (special("link", tarfile.LNKTYPE, "good"), "a link to 'good'"),
        (special("device", tarfile.CHRTYPE), "a device"),
        (special("device", tarfile.BLKTYPE), "a device"),
        (special("pipe", tarfile.FIFOTYPE), "a device or another special file"),
    ],
)
def test_tar_with_links_and_devices(unpack, make_tar, tmp_path, member, reason):
    with pytest.raises(ArchiveError, match=f"member '{member.name}': {reason}"):
        unpack(make_tar([("good", b"good"), member]))
    assert everything(tmp_path / "folder") == ["good"]


def test_file_written_through_a_link(unpack, make_tar, tmp_path):
    link = special("door", tarfile.SYMTYPE, str(tmp_path))
    with pytest.raises(ArchiveError, match="a link"):
        unpack(make_tar([link, ("door/evil", b"evil")]))
    assert not (tmp_path / "evil").exists()


def test_zip_with_a_link(unpack, make_zip, tmp_path):
    with pytest.raises(ArchiveError, match="member 'door': a link or a special file"):
        unpack(make_zip([(linked("door"), str(tmp_path)), ("door/evil", b"evil")]), "set.zip")
    assert everything(tmp_path / "folder") == []


def test_sparse_file(unpack, tmp_path):
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 30)
        file.seek((1 << 30) - 1)
        file.write(b"x")
    assert os.system(f"cd {tmp_path} && tar -Sczf sparse.tar.gz holes") == 0
    with pytest.raises(ArchiveError, match="a sparse file"):
        unpack((tmp_path / "sparse.tar.gz").read_bytes())
    assert everything(tmp_path / "folder") == []


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    ("names", "reason"),
    [(("a", "a"), "comes twice"), (("a/b", "A/b"), "are one"), (("a", "a/b"), "comes twice")],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_clash(unpack, make_tar, make_zip, kind, names, reason):
    make = make_zip if kind == "zip" else make_tar
    with pytest.raises(ArchiveError, match=reason):
        unpack(make([(name, b"") for name in names]), f"set.{kind}")


def test_names_clash_between_archives_too(tmp_path, make_tar):
    for name, members in [("1.tar.gz", [("a/b", b"1")]), ("2.tar.gz", [("a/B", b"2")])]:
        (tmp_path / name).write_bytes(make_tar(members))
    unpacker = Unpacker(tmp_path)
    unpacker.unpack(tmp_path / "1.tar.gz")
    with pytest.raises(ArchiveError, match=r"2\.tar\.gz: members 'a/b' and 'a/B' are one"):
        unpacker.unpack(tmp_path / "2.tar.gz")


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["set.tar.gz", "set.zip", "set.gz"])
def test_bomb_by_ratio(unpack, make_tar, make_zip, tmp_path, name):
    zeros = bytes(40 << 20)
    make = {"set.tar.gz": make_tar, "set.zip": make_zip}.get(name)
    content = make([("zeros", zeros)]) if make else gzip.compress(zeros)
    assert len(content) < 1 << 16
    with pytest.raises(ArchiveError, match=f"{len(content)} bytes become more than 16777216"):
        unpack(content, name)
    assert size_of(tmp_path / "folder") <= 17 << 20


def test_bomb_that_lies_about_its_size(unpack, make_zip, tmp_path):
    content = make_zip([("zeros", bytes(40 << 20))])
    lie = content.replace(struct.pack("<L", 40 << 20), struct.pack("<L", 100))
    assert lie != content
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(lie, "set.zip")
    assert size_of(tmp_path / "folder") <= 100


def test_zip_whose_members_share_their_bytes(unpack, make_zip):
    # Fifield (2019): many entries of the directory point at the same compressed bytes.
    content = make_zip([("zeros", bytes(4 << 20))])
    start = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    entry, tail = content[start:end], bytearray(content[end:])
    names = [b"zero%d" % i for i in range(10)]
    directory = b"".join(entry.replace(b"zeros", name) for name in names)
    struct.pack_into("<HHL", tail, 8, 10, 10, len(directory))
    with pytest.raises(ArchiveError, match=r"more than 16777216|damaged"):
        unpack(content[:start] + directory + bytes(tail), "set.zip")


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_bomb_by_count(unpack, make_tar, make_zip, tmp_path, kind):
    make = make_zip if kind == "zip" else make_tar
    content = make([(f"file{i}", b"") for i in range(30)])
    with pytest.raises(ArchiveError, match="more than 20 members"):
        unpack(content, f"set.{kind}", Limits(members=20))
    assert len(everything(tmp_path / "folder")) == 20


def test_bytes_of_all_archives_together_are_limited(tmp_path, make_tar):
    for i in range(3):
        (tmp_path / f"{i}.tar.gz").write_bytes(make_tar([(f"member{i}", NOISE)]))
    unpacker = Unpacker(tmp_path, Limits(total_bytes=500_000))
    unpacker.unpack(tmp_path / "0.tar.gz")
    unpacker.unpack(tmp_path / "1.tar.gz")
    with pytest.raises(ArchiveError, match=r"2\.tar\.gz: more than 500000 bytes in all"):
        unpacker.unpack(tmp_path / "2.tar.gz")


def test_limits_let_honest_archives_pass(unpack, make_tar):
    # What shrinks 1000 times is taken while it stays small.
    unpack(make_tar([("text", bytes(10 << 20))]))


def test_header_that_is_a_bomb_is_not_read_into_memory(unpack):
    size = 1 << 30
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, size
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(info.tobuf(tarfile.USTAR_FORMAT))
    content = head + packer.compress(bytes(4 << 20)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=f"a header of {size} bytes at byte 512"):
            unpack(content)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_header_with_a_negative_size_does_not_loop(unpack):
    info = tarfile.TarInfo("loop")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 8 + struct.pack(">i", -1024)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(ArchiveError, match=r"set\.tar: "):
        unpack(bytes(block) + bytes(4096), "set.tar")


def test_many_members_do_not_pile_up_in_memory(unpack, make_tar):
    content = make_tar([(f"{i}", b"x") for i in range(300)])
    calls, live = itertools.count(), []

    def count(*_):
        if next(calls) % 200 == 0:
            live.append(sum(isinstance(thing, tarfile.TarInfo) for thing in gc.get_objects()))

    unpack(content, progress=count)
    assert len(live) >= 3
    assert max(live) - min(live) <= 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("name", ["set.tar.gz", "set.tar", "set.zip", "set.gz"])
def test_cut_archive(unpack, make_tar, make_zip, name, share):
    if name == "set.gz":
        whole = gzip.compress(NOISE)
    elif name == "set.zip":
        whole = make_zip(MEMBERS)
    else:
        whole = make_tar(MEMBERS, compressed=name != "set.tar")
    # The last 8 kB of a tar may be padding.
    cut = whole[: int(len(whole.rstrip(b"\0")) * share)]
    with pytest.raises(ArchiveError, match=rf"{name}: (damaged or )?cut short"):
        unpack(cut, name)


def test_tar_cut_between_two_members(unpack, make_tar):
    whole = make_tar([("a", b"a"), ("b", b"b")], compressed=False)
    with pytest.raises(ArchiveError, match="cut short or damaged at byte 1024"):
        unpack(whole[:1024], "set.tar")


def test_tar_with_a_damaged_header_in_the_middle(unpack, make_tar):
    damaged = bytearray(make_tar([("a", b"a"), ("b", b"b")], compressed=False))
    damaged[1024 + 5] ^= 1
    with pytest.raises(ArchiveError, match="cut short or damaged at byte 1536"):
        unpack(bytes(damaged), "set.tar")


def test_archive_hidden_behind_the_end_of_another(unpack, make_tar):
    first = make_tar([("a", b"a")], compressed=False)
    second = make_tar([("b", b"b")], compressed=False)
    with pytest.raises(ArchiveError, match="something follows its end"):
        unpack(first + second, "set.tar")


def test_every_flipped_byte_of_a_compressed_tar_is_noticed(unpack, make_tar, tmp_path):
    members = [("a", b"first"), ("b", b"second")]
    content = make_tar(members)
    for i in range(10, len(content)):  # before that: time and name in the header, which say nothing
        damaged = bytearray(content)
        damaged[i] ^= 4
        for path in (tmp_path / "folder").glob("*"):
            path.unlink()
        with pytest.raises(ArchiveError):
            unpack(bytes(damaged))


def test_damaged_member_of_a_zip(unpack, make_zip):
    content = bytearray(make_zip([("a", NOISE)]))
    content[1000] ^= 1
    with pytest.raises(ArchiveError, match=r"set\.zip: damaged or cut short"):
        unpack(bytes(content), "set.zip")


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tar", "set.zip", "set.gz"])
@pytest.mark.parametrize("content", [b"<html>Please log in</html>", NOISE], ids=["page", "noise"])
def test_something_else(unpack, name, content):
    with pytest.raises(ArchiveError, match=f"{name}: "):
        unpack(content, name)


def test_encrypted_zip(unpack, make_zip):
    content = bytearray(make_zip([("a", b"a")]))
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(ArchiveError, match="member 'a': encrypted"):
        unpack(bytes(content), "set.zip")


def test_name_with_a_nul_is_not_cut_there(unpack, make_zip):
    content = make_zip([("good.pngX..", b"a")]).replace(b"good.pngX..", b"good.png\0..")
    with pytest.raises(ArchiveError, match="does not belong"):
        unpack(content, "set.zip")


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_progress_ends_with_the_whole_archive(unpack, make_tar, make_zip, monkeypatch, kind):
    monkeypatch.setattr(archives, "CHUNK", 1 << 14)
    content = (make_zip if kind == "zip" else make_tar)(MEMBERS[:2])
    seen = []
    unpack(content, f"set.{kind}", progress=lambda *bytes_read: seen.append(bytes_read))
    assert {total for _, total in seen} == {len(content)}
    assert len(seen) > 5
    assert seen[-1][0] >= 0.9 * len(content)
