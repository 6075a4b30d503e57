"""Scans in an object store, against a server that speaks S3."""

import shutil
import tempfile
import zipfile
from dataclasses import replace

import numpy as np
import obstore
import pytest
import SimpleITK as sitk

from lungmix.errors import SourceError, UsageError
from lungmix.formats import RejectedSource, find_scans, remote
from support.series import hu_of, only_scan, read, refused, scans, skipped, write_series

HU = hu_of((12, 20, 24))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with sources of every kind, which contain one volume each."""
    root = tmp_path_factory.mktemp("sources") / "hospital"
    write_series(root / "series", HU)
    image = sitk.GetImageFromArray(HU)
    image.SetSpacing((0.5, 0.75, 1.25))
    for name in ("one.nrrd", "two.nii.gz", "three.mha", "four.mhd", "five.nhdr"):
        sitk.WriteImage(image, str(root / name))
    write_series(root / "loose", HU + 1, seed=1, SeriesNumber=9)
    with zipfile.ZipFile(root / "packed.zip", "w") as archive:
        for file in sorted((root / "loose").iterdir()):
            archive.write(file, f"inner/{file.name}")
    shutil.rmtree(root / "loose")
    (root / "readme.txt").write_text("words\n")
    return root


@pytest.fixture(scope="module")
def address(bucket, folder):
    return bucket.upload(folder, "hospital")


@pytest.fixture(scope="module")
def local_items(folder):
    """Results of a search of the folder on the disk."""
    return find_scans(folder)


@pytest.fixture(autouse=True)
def passing(tmp_path, monkeypatch):
    """Folder for temporary files, which must be empty at the end of a test."""
    place = tmp_path / "passing"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert not list(place.iterdir())


def facts_of(items):
    return [(item.name, item.path, item.key, item.fingerprint) for item in scans(items)]


def test_scans_under_a_prefix_equal_those_of_the_folder(address, folder, local_items):
    remote_items = find_scans(address)
    assert [remote_item.path for remote_item in remote_items] == [
        remote_item.path.replace(str(folder), address) for remote_item in local_items
    ]
    assert len(scans(remote_items)) == 7
    for remote_item, local_item in zip(scans(remote_items), scans(local_items), strict=True):
        assert (remote_item.name, remote_item.kind, remote_item.geometry, remote_item.acquisition) == (
            local_item.name,
            local_item.kind,
            local_item.geometry,
            local_item.acquisition,
        )
        assert (remote_item.notes, remote_item.series) == (local_item.notes, local_item.series)
        assert np.array_equal(read(remote_item), read(local_item))
    for remote_item, local_item in zip(skipped(remote_items), skipped(local_items), strict=True):
        assert remote_item.reason == local_item.reason


def test_scan_is_recognized_until_its_objects_change(bucket, folder):
    address = bucket.upload(folder, "again")
    before = facts_of(find_scans(address))
    bucket.upload(folder, "again")
    assert facts_of(find_scans(address)) == before
    changed = sorted((folder / "series").iterdir())[3].read_bytes()
    obstore.put(bucket.store(), "again/series/00004.dcm", changed[:-2] + b"\0\7")
    image = (folder / "one.nrrd").read_bytes()
    obstore.put(bucket.store(), "again/one.nrrd", image[:-1] + bytes([image[-1] ^ 1]))
    after = facts_of(find_scans(address))
    assert [facts[:3] for facts in after] == [facts[:3] for facts in before]
    assert {facts[0] for facts, two in zip(after, before, strict=True) if facts[3] != two[3]} == {"series", "one"}


@pytest.mark.parametrize("name", ["one.nrrd", "two.nii.gz", "three.mha", "four.mhd", "five.nhdr", "packed.zip"])
def test_single_object_is_the_same_scan_as_under_its_prefix(address, folder, local_items, name):
    scan = only_scan(f"{address}/{name}")
    assert (scan.key, scan.fingerprint) in {(two.key, two.fingerprint) for two in scans(find_scans(address))}
    (two,) = [two for two in scans(local_items) if two.path.startswith(str(folder / name))]
    assert np.array_equal(read(scan), read(two))


def test_lists_contain_relative_objects_and_addresses(bucket, address, tmp_path):
    text = f"hospital/one.nrrd\n{bucket.url('hospital/series')}\n/etc/passwd\n../other\nftp://host/scan\n"
    obstore.put(bucket.store(), "list.txt", text.encode().replace(b"/etc/passwd\n../other\n", b""))
    items = find_scans(bucket.url("list.txt"))
    assert [item.path for item in scans(items)] == [f"{address}/one.nrrd", f"{address}/series"]
    assert "s3://BUCKET/PREFIX" in refused(items)[0].reason
    (tmp_path / "list.txt").write_text(f"{address}/two.nii.gz\n")
    assert facts_of(find_scans(tmp_path / "list.txt")) == facts_of(find_scans(f"{address}/two.nii.gz"))
    for entry in ("/etc/passwd", "../../etc/passwd", "a/../../b"):
        obstore.put(bucket.store(), "out/list.txt", f"{entry}\n".encode())
        (item,) = find_scans(bucket.url("out/list.txt"))
        assert isinstance(item, RejectedSource)
        assert "outside its own folder" in item.reason


def test_only_the_beginning_of_a_large_image_is_downloaded_for_its_header(bucket, tmp_path, monkeypatch):
    image = sitk.GetImageFromArray(np.arange(40 * 128 * 512, dtype=np.int16).reshape(40, 128, 512))
    sitk.WriteImage(image, str(tmp_path / "large.nrrd"))
    bucket.upload(tmp_path, "large")
    fetched = []
    get = obstore.get

    def count(store, key, *, options):
        fetched.append(options["range"][1] - options["range"][0])
        return get(store, key, options=options)

    monkeypatch.setattr(obstore, "get", count)
    scan = only_scan(bucket.url("large/large.nrrd"))
    assert sum(fetched) == 2 << 20
    assert np.array_equal(read(scan), sitk.GetArrayFromImage(image))


def test_only_dicom_is_downloaded_of_large_objects(bucket, folder, tmp_path, monkeypatch):
    write_series(tmp_path / "series", HU)
    (tmp_path / "series" / "raw").write_bytes(bytes(range(256)) * 100)
    address = bucket.upload(tmp_path / "series", "blobs")
    monkeypatch.setattr(remote, "_HEADER_BYTES", 300)
    monkeypatch.setattr(remote, "_LARGE_OBJECT_BYTES", 301)
    fetched = []
    get = obstore.get

    def count(store, key, *, options):
        if key == "blobs/raw":
            fetched.append(options["range"][1] - options["range"][0])
        return get(store, key, options=options)

    monkeypatch.setattr(obstore, "get", count)
    scan = only_scan(address)
    assert fetched == [300]
    assert np.array_equal(read(scan), HU)


def detached(folder, extension, url):
    """Write a header that names its data file by an address."""
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(HU), str(folder / f"scan{extension}"), useCompression=False)
    field = b"data file: " if extension == ".nhdr" else b"ElementDataFile = "
    lines = (folder / f"scan{extension}").read_bytes().splitlines()
    text = b"\n".join(field + url.encode() if line.startswith(field) else line for line in lines) + b"\n"
    (folder / f"scan{extension}").write_bytes(text)
    (folder / "scan.raw").unlink()


@pytest.fixture
def requested(monkeypatch):
    """Buckets that are opened, and keys of objects that are read, in the order of these events."""
    keys = []
    get, open_bucket = obstore.get, remote.open_bucket
    monkeypatch.setattr(obstore, "get", lambda store, key, **options: keys.append(key) or get(store, key, **options))
    monkeypatch.setattr(remote, "open_bucket", lambda url: keys.append(url) or open_bucket(url))
    return keys


@pytest.mark.parametrize("extension", [".nhdr", ".mhd"])
@pytest.mark.parametrize(("data", "source"), [("a", ""), ("a", "/a/scan"), ("voxels/b", "")])
def test_data_file_is_read_at_its_address_within_the_source(bucket, tmp_path, extension, data, source):
    prefix = f"addressed{extension}{data.partition('/')[0]}"
    detached(tmp_path / "a", extension, bucket.url(f"{prefix}/{data}/scan.raw"))
    obstore.put(bucket.store(), f"{prefix}/{data}/scan.raw", HU.tobytes())
    bucket.upload(tmp_path, prefix)
    (scan,) = find_scans(bucket.url(prefix + (source and f"{source}{extension}")))
    assert np.array_equal(read(scan), HU)


@pytest.mark.parametrize("extension", [".nhdr", ".mhd"])
@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("bucket", "s3://cohorts/%PREFIX-secret/scan.raw"),
        ("bucket", "s3://cohorts/%PREFIX/../%PREFIX-secret/scan.raw"),
        ("bucket", "s3://cohorts/%PREFIX//scan.raw"),
        ("bucket", "s3://cohorts/%PREFIX/none.raw"),
        ("bucket", "s3://other/%PREFIX/scan.raw"),
        ("bucket", "S3://cohorts/%PREFIX/scan.raw"),
        ("bucket", "https://host/scan.raw"),
        ("bucket", "file:///etc/passwd"),
        ("header", "s3://cohorts/%PREFIX/sub/scan.raw"),
        ("archive", "s3://cohorts/%PREFIX/scan.raw"),
        ("disk", "s3://cohorts/%PREFIX/scan.raw"),
    ],
)
def test_header_leads_to_no_address_outside_its_source(bucket, tmp_path, requested, extension, kind, url):
    prefix = f"outside-{kind}{extension}"
    detached(tmp_path / "a", extension, url.replace("%PREFIX", prefix))
    for key in (f"{prefix}/scan.raw", f"{prefix}/sub/scan.raw", f"{prefix}-secret/scan.raw"):
        obstore.put(bucket.store(), key, HU.tobytes())
    source = tmp_path / "a"
    if kind == "archive":
        shutil.make_archive(str(tmp_path / "packed"), "zip", source)
        obstore.put(bucket.store(), f"{prefix}/packed.zip", (tmp_path / "packed.zip").read_bytes())
        source = bucket.url(f"{prefix}/packed.zip")
    elif kind != "disk":
        source = bucket.upload(source, prefix) + (f"/scan{extension}" if kind == "header" else "")
    (rejected,) = refused(find_scans(source))
    assert "names its data file by an address" in rejected.reason
    assert ("its source has no object" in rejected.reason) == (kind not in ("archive", "disk"))
    assert {key.split("/")[0] for key in requested if "://" not in key} <= {prefix}
    assert {key for key in requested if "://" in key} <= {"s3://cohorts"}


def test_archive_is_separate_from_the_objects_of_its_folder(bucket, tmp_path):
    detached(tmp_path / "a", ".nhdr", bucket.url("apart/scan.raw"))
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "a")
    obstore.put(bucket.store(), "apart/packed.zip", (tmp_path / "packed.zip").read_bytes())
    obstore.put(bucket.store(), "apart/scan.raw", HU.tobytes())
    (rejected,) = refused(find_scans(bucket.url("apart")))
    assert "by an address" in rejected.reason


def test_dicomdir_selects_its_folder(address):
    assert facts_of(find_scans(f"{address}/DICOMDIR")) == facts_of(find_scans(address))


def test_object_that_changes_between_search_and_reading_is_rejected(bucket, folder):
    address = bucket.upload(folder, "moving")
    scan = only_scan(f"{address}/one.nrrd")
    obstore.put(bucket.store(), "moving/one.nrrd", (folder / "three.mha").read_bytes())
    with pytest.raises(SourceError, match="changed while it was read: run again"):
        read(scan)
    obstore.delete(bucket.store(), "moving/one.nrrd")
    with pytest.raises(SourceError, match=r"one\.nrrd does not exist"):
        read(scan)


def test_keys_that_are_no_paths_are_rejected_without_affecting_others(bucket, folder):
    content = (folder / "one.nrrd").read_bytes()
    store = bucket.store()
    for key in ("odd/good.nrrd", "odd/c:evil.nrrd", "odd/both", "odd/both/b.nrrd"):
        obstore.put(store, key, content)
    items = find_scans(bucket.url("odd"))
    assert sorted(item.name for item in scans(items)) == ["b", "good"]
    assert len(refused(items)) == 2
    assert all("give it another key" in item.reason for item in refused(items))


@pytest.mark.parametrize(
    "name", ["../../out.nrrd", "/abs.nrrd", "a/../../../out.nrrd", "nul\0.nrrd", "..", "a\\..\\b", "x" * 300]
)
def test_no_key_leads_out_of_the_folder(name, monkeypatch, passing, bucket):
    from datetime import UTC, datetime

    meta = {"path": f"x/{name}", "size": 0, "e_tag": "1", "last_modified": datetime.now(UTC)}
    monkeypatch.setattr(remote, "_list_objects", lambda *_: ([meta], False))
    (item,) = [item for item in find_scans(bucket.url("x")) if "no path" in item.reason]
    assert isinstance(item, RejectedSource)


def test_objects_beyond_the_limits_are_rejected_before_the_download(address, monkeypatch):
    scan = only_scan(f"{address}/one.nrrd")
    monkeypatch.setattr(remote, "MAX_BYTES", 1000)
    (item,) = find_scans(address)
    assert "several prefixes" in item.reason
    with pytest.raises(SourceError, match="temporary files"):
        read(scan)
    monkeypatch.setattr(remote, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr(remote, "MAX_MEMBERS", 3)
    (item,) = find_scans(address)
    assert "more than 3 objects" in item.reason


def test_scan_and_its_objects_show_no_names(address):
    scan = only_scan(f"{address}/one.nrrd")
    for shown in (scan, scan.reader, scan.reader.objects.members[0], replace(scan, reader=scan.reader.local)):
        assert "hospital" not in repr(shown)
        assert "one" not in repr(shown)


def test_unreachable_addresses_are_reported_in_one_sentence(bucket, monkeypatch):
    assert "does not exist in its bucket" in find_scans(bucket.url("nothing"))[0].reason
    assert "there is no such bucket" in find_scans("s3://no-such-bucket/scans")[0].reason
    with pytest.raises(UsageError, match="s3://BUCKET/PREFIX"):
        find_scans("ftp://host/scans")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "the object store does not answer" in find_scans(bucket.url("hospital"))[0].reason


def test_wrong_credentials_are_reported_as_such(bucket, address, monkeypatch):
    from lungmix import s3 as connections

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    connections._open_store.cache_clear()
    try:
        assert "access is denied" in find_scans(address)[0].reason
    finally:
        connections._open_store.cache_clear()


def test_abandoned_reading_leaves_no_files(address, passing):
    slabs = only_scan(f"{address}/series").slabs(2)
    assert next(slabs).shape == (2, 20, 24)
    assert list(passing.iterdir())
    slabs.close()
    assert not list(passing.iterdir())
