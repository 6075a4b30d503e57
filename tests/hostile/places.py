"""Hostile archives, folders, names and lists."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import socket
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

from hostile.corpus import CASES, EITHER, READ, REFUSED, Case, case, read, refused
from hostile.images import RAW, nrrd


def scan_bytes(folder: Path) -> bytes:
    """Return the bytes of a valid NRRD file."""
    path = nrrd(folder, name=".passing.nrrd")
    content = path.read_bytes()
    path.unlink()
    return content


# --- zip


def zipped(folder: Path, members, **options) -> Path:
    """Write a zip file; `members` are pairs of a name (or ZipInfo) and a content."""
    with zipfile.ZipFile(folder / "scans.zip", "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return folder / "scans.zip"


@read()
def zip_plain(folder):
    return zipped(folder, [("a/scan.nrrd", scan_bytes(folder))])


def names_outside(kind: str, name: str, path: str) -> None:
    def write(folder: Path) -> Path:
        members = [("scan.nrrd", scan_bytes(folder)), (path, b"x")]
        return zipped(folder, members) if kind == "zip" else tarred(folder, members)

    CASES[f"{kind}_{name}"] = Case(f"{kind}_{name}", write, REFUSED, ("scans.",), ("outside",))


def tarred(folder: Path, members, mode: str = "w:gz", name: str = "scans.tar.gz") -> Path:
    """Write a tar file; `members` are pairs of a name (or TarInfo) and a content."""
    with tarfile.open(folder / name, mode, format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return folder / name


for _kind in ("zip", "tar"):
    names_outside(_kind, "climbs_out", "../out.nrrd")
    names_outside(_kind, "climbs_out_from_within", "a/../../out.nrrd")
    names_outside(_kind, "absolute", "/tmp/out.nrrd")
    names_outside(_kind, "climbs_out_in_windows", "..\\out.nrrd")
    names_outside(_kind, "drive", "C:\\out.nrrd")


def zip_by_hand(folder: Path, names, content: bytes, copies: bool = False) -> Path:
    """Write a zip file whose entries have equal content: each its own copy, or all the same bytes of the file."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(content) + deflate.flush()
    fields = (20, 0, 8, 0, 0, zlib.crc32(content), len(packed), len(content))
    pieces, entries = [], []
    for i, name in enumerate(names):
        at = sum(map(len, pieces[:1])) * i if copies else 0
        if copies or not i:
            pieces.append(struct.pack("<4s5H3L2H", b"PK\3\4", *fields, 0, 0) + packed)
        entries.append(struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, len(name), 0, 0, 0, 0, 0, at) + name)
    files, directory = b"".join(pieces), b"".join(entries)
    count = min(len(entries), 0xFFFF)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(files), 0)
    (folder / "scans.zip").write_bytes(files + directory + end)
    return folder / "scans.zip"


@refused("limits")
def zip_bomb(folder):
    return zip_by_hand(folder, [b"%d.nrrd" % i for i in range(20)], bytes(1 << 27), copies=True)


@refused("limits")
def zip_bomb_of_overlapping_entries(folder):
    # All entries of the directory refer to the same bytes of the file.
    return zip_by_hand(folder, [b"%d.nrrd" % i for i in range(20)], bytes(1 << 27))


@refused()
def zip_within_a_zip_within_a_zip(folder):
    content = bytes(1 << 24)
    for depth in range(6):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(4):
                archive.writestr(f"{depth}-{i}.zip", content)
        content = stream.getvalue()
    (folder / "scans.zip").write_bytes(content)
    return folder / "scans.zip"


@refused("corrupt or protected")
def zip_encrypted(folder):
    path = zipped(folder, [("scan.nrrd", scan_bytes(folder))])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    at = content.rfind(b"PK\1\2")
    content[at + 8] |= 1
    path.write_bytes(content)
    return path


def zip_lies(name: str, offset: int, value: int, expected: str = REFUSED) -> None:
    """Add a case: a zip file with another number of 4 bytes at an offset in the first entry of its directory."""

    def write(folder: Path) -> Path:
        path = zipped(folder, [("scan.nrrd", scan_bytes(folder))])
        content = bytearray(path.read_bytes())
        at = content.rfind(b"PK\1\2") + offset
        content[at : at + 4] = value.to_bytes(4, "little")
        path.write_bytes(content)
        return path

    CASES[f"zip_{name}"] = Case(f"zip_{name}", write, expected, ("scans.zip",), ())


zip_lies("size_too_small", 24, 100)
zip_lies("size_too_large", 24, 100_000)
zip_lies("size_of_gigabytes", 24, 0xFFFFFFFE)
zip_lies("packed_size_too_large", 20, 1 << 30, EITHER)
zip_lies("checksum_wrong", 16, 12345)
zip_lies("offset_far_away", 42, 0x7FFFFFFF)
zip_lies("coding_unknown", 10, 77)
zip_lies("coding_lzma", 10, 14)


@refused()
def zip_cut_short(folder):
    path = zipped(folder, [("scan.nrrd", scan_bytes(folder))])
    path.write_bytes(path.read_bytes()[:-30])
    return path


@refused("limits")
def zip_directory_of_gigabytes(folder):
    path = zipped(folder, [("scan.nrrd", scan_bytes(folder))])
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\5\6")
    content[at + 12 : at + 16] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    return path


@refused("limits")
def zip_of_very_many_members(folder):
    return zip_by_hand(folder, [b"%d" % i for i in range(100_001)], b"")


@refused("two files")
def zip_of_two_files_of_one_name(folder):
    content = scan_bytes(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped(folder, [("scan.nrrd", content), ("scan.nrrd", content[:-5])])


@refused()
def zip_member_is_file_and_folder(folder):
    return zipped(folder, [("a", b"x"), ("a/scan.nrrd", scan_bytes(folder))])


@refused("limits")
def zip_of_a_thousand_folders_in_each_other(folder):
    return zipped(folder, [("a/" * 1000 + "scan.nrrd", scan_bytes(folder))])


@refused()
def zip_member_of_a_very_long_name(folder):
    return zipped(folder, [("x" * 5000 + ".nrrd", scan_bytes(folder))])


@refused()
def zip_member_without_a_name(folder):
    return zip_by_hand(folder, [b""], scan_bytes(folder))


@refused()
def zip_of_links_alone(folder):
    info = zipfile.ZipInfo("scan.nrrd")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped(folder, [(info, b"/etc/passwd")])


@read()
def zip_of_links_and_a_scan(folder):
    link, pipe = zipfile.ZipInfo("link.nrrd"), zipfile.ZipInfo("pipe.nrrd")
    link.external_attr, pipe.external_attr = (stat.S_IFLNK | 0o777) << 16, (stat.S_IFIFO | 0o777) << 16
    return zipped(folder, [(link, b"../../scan.nrrd"), (pipe, b""), ("scan.nrrd", scan_bytes(folder))])


# --- tar


@read()
def tar_plain(folder):
    return tarred(folder, [("a/scan.nrrd", scan_bytes(folder))])


@read()
def tar_in_xz(folder):
    return tarred(folder, [("a/scan.nrrd", scan_bytes(folder))], "w:xz", "scans.tar.xz")


@read()
def tar_of_links_and_devices_and_a_scan(folder):
    members = []
    for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)):
        info = tarfile.TarInfo(f"{i}.nrrd")
        info.type, info.linkname, info.devmajor, info.devminor = kind, "../../../etc/passwd", 1, 5
        members.append((info, b""))
    loop = tarfile.TarInfo("loop")
    loop.type, loop.linkname = tarfile.SYMTYPE, "."
    return tarred(folder, [*members, (loop, b""), ("scan.nrrd", scan_bytes(folder))])


@refused("outside")
def tar_writes_through_a_link(folder):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = tarfile.SYMTYPE, "/tmp"
    return tarred(folder, [(info, b""), ("link/../../out.nrrd", b"x")])


@refused("limits")
def tar_bomb(folder):
    # A gzip file may consist of many equal parts.
    info = tarfile.TarInfo("scan.nrrd")
    info.size = 3 << 30
    parts = gzip.compress(info.tobuf()) + gzip.compress(bytes(1 << 24)) * 200
    (folder / "scans.tar.gz").write_bytes(parts)
    return folder / "scans.tar.gz"


@refused("limits")
def tar_bomb_of_many_members(folder):
    content = bytearray()
    part = gzip.compress(bytes(1 << 25))
    for i in range(12):
        info = tarfile.TarInfo(f"{i}.nrrd")
        info.size = 1 << 25
        content += gzip.compress(info.tobuf()) + part
    (folder / "scans.tar.gz").write_bytes(content)
    return folder / "scans.tar.gz"


@refused("limits")
def tar_bomb_in_a_header(folder):
    # The name of a file has a gigabyte, compressed to a megabyte.
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    parts = gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + gzip.compress(b"a" * (1 << 24)) * 64
    (folder / "scans.tar.gz").write_bytes(parts)
    return folder / "scans.tar.gz"


@refused("limits")
def tar_of_very_many_members(folder):
    info = tarfile.TarInfo("a")
    info.type = tarfile.DIRTYPE
    (folder / "scans.tar.gz").write_bytes(gzip.compress(info.tobuf() * 100_001 + bytes(1024), 1))
    return folder / "scans.tar.gz"


@refused("two files")
def tar_of_two_files_of_one_name(folder):
    content = scan_bytes(folder)
    return tarred(folder, [("scan.nrrd", content), ("./scan.nrrd", content[:-5])])


@refused()
def tar_sparse_of_a_petabyte(folder):
    info = tarfile.TarInfo("scan.nrrd")
    info.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "scan.nrrd",
        "GNU.sparse.size": str(1 << 50), "GNU.sparse.map": f"{(1 << 50) - 10},10", "GNU.sparse.numblocks": "1",
    }  # fmt: skip
    return tarred(folder, [(info, b"0123456789")])


@refused()
def tar_with_senseless_numbers(folder):
    info = tarfile.TarInfo("scan.nrrd")
    info.pax_headers = {"GNU.sparse.map": "a,b,c", "size": "nonsense", "mtime": "nan"}
    return tarred(folder, [(info, b"x" * 1000)])


def tar_damage(name: str, mode: str, extension: str, change) -> None:
    """Add a case: a tar file with bytes that `change` returns from those of a valid file."""

    def write(folder: Path) -> Path:
        path = tarred(folder, [("scan.nrrd", scan_bytes(folder))], mode, f"scans.tar{extension}")
        path.write_bytes(change(path.read_bytes()))
        return path

    CASES[name] = Case(name, write, REFUSED, (f"scans.tar{extension}",), ())


for _mode, _extension in (("w", ""), ("w:gz", ".gz"), ("w:bz2", ".bz2"), ("w:xz", ".xz")):
    _word = _extension.strip(".") or "bare"
    tar_damage(f"tar_{_word}_cut_short", _mode, _extension, lambda b: b[: min(len(b) // 3, 900)])
    tar_damage(f"tar_{_word}_cut_to_its_beginning", _mode, _extension, lambda b: b[:20])
    tar_damage(
        f"tar_{_word}_changed_in_its_middle",
        _mode,
        _extension,
        lambda b: b[:100] + bytes(reversed(b[100:160])) + b[160:] if len(b) < 5000 else b[:150] + b"99" + b[152:],
    )


@refused()
def tar_in_xz_that_wants_a_gigabyte(folder):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        content = scan_bytes(folder)
        info = tarfile.TarInfo("scan.nrrd")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    packed = bytearray(lzma.compress(stream.getvalue(), preset=0))
    # The header of the first block declares the size of the dictionary, and has its own checksum.
    packed[12 + 4] = 40
    length = (packed[12] + 1) * 4
    packed[12 + length - 4 : 12 + length] = zlib.crc32(bytes(packed[12 : 12 + length - 4])).to_bytes(4, "little")
    (folder / "scans.tar.xz").write_bytes(packed)
    return folder / "scans.tar.xz"


# --- folders


@read()
def folder_of_pipes_sockets_devices_and_a_scan(folder):
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.nrrd")
    (folder / "zero.nrrd").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        previous = Path.cwd()
        os.chdir(folder)
        listening.bind("socket.dcm")
        os.chdir(previous)
    nrrd(folder)
    return folder


@refused()
def folder_of_pipes_alone(folder):
    os.mkfifo(folder / "pipe.nrrd")
    os.mkfifo(folder / "pipe")
    return folder


@case(EITHER)
def folder_with_links_in_a_circle(folder):
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "self.nrrd").symlink_to("self.nrrd")
    nrrd(folder / "a")
    return folder


@read()
def folder_named_like_an_image(folder):
    (folder / "x.nrrd").mkdir()
    return nrrd(folder / "x.nrrd").parent


@refused()
def folder_that_is_empty(folder):
    (folder / "nothing").mkdir()
    return folder / "nothing"


@refused("a pipe", names=("pipe.nrrd",))
def pipe_given_by_name(folder):
    os.mkfifo(folder / "pipe.nrrd")
    return folder / "pipe.nrrd"


@refused("a device", names=("zero",))
def device_given_by_name(folder):
    return Path("/dev/zero")


@refused(names=("loop.nrrd",))
def link_to_itself(folder):
    (folder / "loop.nrrd").symlink_to("loop.nrrd")
    return folder / "loop.nrrd"


@case(EITHER, names=("d",))
def folder_a_thousand_deep(folder):
    # The folder is deeper than the longest path of the system, so no absolute path leads to the innermost folder.
    nrrd(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    return folder


# --- names

NAMES = {
    "newline": "a\nb",
    "carriage_return_and_escape": "a\r\x1b[31mred\x1b[0m",
    "right_to_left": "scan\N{RIGHT-TO-LEFT OVERRIDE}drrn",
    "isolates": "a\N{POP DIRECTIONAL ISOLATE}b\N{FIRST STRONG ISOLATE}c",
    "undecodable": "a\udcff\udce9b",
    "dots": "...",
    "blank": " ",
    "markup": "[bold]a[blink]<script>alert(1)<b>",
    "percent": "%s%n{0}",
    "very_long": "x" * 240,
    "options": "--help",
}

for _name, _text in NAMES.items():
    CASES[f"name_{_name}_of_a_scan"] = Case(
        f"name_{_name}_of_a_scan", lambda folder, text=_text: nrrd(folder, name=f"{text}.nrrd"), READ, (), ()
    )
    CASES[f"name_{_name}_of_a_broken_file"] = Case(
        f"name_{_name}_of_a_broken_file",
        lambda folder, text=_text: nrrd(folder, RAW[:5], name=f"{text}.nrrd"),
        REFUSED,
        (),
        (),
    )


# --- lists


def listed(folder: Path, content: bytes, name: str = "list.txt") -> Path:
    """Write a list of sources next to a valid scan."""
    nrrd(folder)
    (folder / name).write_bytes(content)
    return folder / name


def of_list(name: str, expected: str, *words: str, content: bytes, file: str = "list.txt") -> None:
    """Add a case that is a list of sources."""
    CASES[f"list_{name}"] = Case(f"list_{name}", lambda folder: listed(folder, content, file), expected, (), words)


of_list("of_one_scan", READ, content=b"scan.nrrd\r\n")
of_list("of_one_scan_many_times", READ, content=b"scan.nrrd\n" * 1000)
of_list("of_itself", REFUSED, content=b"list.txt\n")
of_list("with_nul", REFUSED, "UTF-8", content=b"scan\0.nrrd\n")
of_list("in_another_encoding", REFUSED, "UTF-8", content="M\xfcller.nrrd\n".encode("latin-1"))
of_list("with_a_line_of_a_megabyte", REFUSED, "too long", content=b"x" * (1 << 20) + b"\n")
of_list("that_is_huge", REFUSED, "too large", content=b"\n" * ((16 << 20) + 1))
of_list("of_nothing", REFUSED, "lists nothing", content=b"# nothing\n\n")
of_list("of_very_many", REFUSED, "200,000", content=b"".join(b"%d.nrrd\n" % i for i in range(200_001)))
of_list("table_with_an_open_quote", REFUSED, content=b'path\n"scan.nrrd\n' + b"x" * 200_000, file="list.csv")
of_list(
    "table_with_a_huge_cell", REFUSED, file="list.csv", content=b'path\n"' + b"\n".join([b"x" * 4000] * 40) + b'"\n'
)


@refused("a device", names=("zero",))
def list_of_a_device(folder):
    return listed(folder, b"/dev/zero\n")


@refused(names=("b.txt",))
def list_of_lists(folder):
    listed(folder, b"a.txt\n", "b.txt")
    return listed(folder, b"b.txt\n", "a.txt")


@refused(names=("pipe.nrrd",))
def list_of_a_pipe(folder):
    os.mkfifo(folder / "pipe.nrrd")
    return listed(folder, b"pipe.nrrd\n")


@case(EITHER)
def list_of_a_name_too_long_for_a_file(folder):
    return listed(folder, b"x" * 3000 + b".nrrd\nscan.nrrd\n")
