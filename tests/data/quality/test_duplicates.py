"""The data quality check: duplicates, label conflicts, overlap with the holdout."""

from __future__ import annotations

import random
import shutil
import sys

import pytest
from PIL import Image

from airflow_provider_osai.data.quality.duplicates import near_duplicate_groups, nearest
from tests.data.quality.making import code_files, fill, photo
from tests.data.quality.test_images import check, data

__all__ = ["data"]


def test_identical_pixels_are_duplicates_whatever_the_file(data):
    """A copy, another compression, and another format without loss."""
    shutil.copy(data / "cat" / "0.png", data / "cat" / "copy.png")
    photo(0).save(data / "cat" / "other.png", compress_level=0)
    photo(0).save(data / "cat" / "other.bmp")
    report = check(data)
    assert code_files(report) == {"duplicate-image": ["cat/0.png", "cat/copy.png", "cat/other.bmp", "cat/other.png"]}
    assert report.findings[0].count == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 40)),
        lambda image: image.resize((300, 250)),
        lambda image: image.convert("L"),
        lambda image: image.point(lambda value: min(255, value + 10)),
        lambda image: image.convert("CMYK"),
    ],
    ids=["smaller", "larger", "grey", "brighter", "cmyk"],
)
def test_an_image_that_was_changed_a_little_is_a_near_duplicate(data, change):
    change(photo(1)).save(data / "cat" / "again.jpg", quality=90)
    assert code_files(check(data, ignore="unusual-mode")) == {"near-duplicate": ["cat/1.png", "cat/again.jpg"]}
    assert code_files(check(data, ignore="unusual-mode", near_duplicates=False)) == {}


def test_a_rotation_by_exif_alone_is_seen(data):
    """The stored pixels are turned, and EXIF turns them back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(1).transpose(Image.Transpose.ROTATE_90).save(data / "cat" / "phone.jpg", exif=exif, quality=95)
    assert code_files(check(data)) == {"near-duplicate": ["cat/1.png", "cat/phone.jpg"]}


def test_the_same_image_in_two_categories_is_an_error(data):
    shutil.copy(data / "cat" / "0.png", data / "dog" / "copy.png")
    report = check(data)
    assert code_files(report) == {"label-conflict": ["cat/0.png", "dog/copy.png"]}
    assert (report.findings[0].items[0].detail, report.verdict) == ("'cat', 'dog'", "errors")


def test_similar_images_in_two_categories_are_a_warning(data):
    """Two parts in front of one camera may differ in a scratch only."""
    photo(0).save(data / "dog" / "again.jpg", quality=80)
    report = check(data)
    assert code_files(report) == {"near-label-conflict": ["cat/0.png", "dog/again.jpg"]}
    assert report.verdict == "warnings"


def test_blank_images_are_no_duplicates_of_each_other(data):
    for number in range(4):
        Image.new("L", (40 + number // 2, 40), 255).save(data / "cat" / f"blank {number}.png")
    assert list(code_files(check(data))) == ["blank-image"]


def test_the_files_of_a_large_group_are_limited(data):
    for number in range(25):
        shutil.copy(data / "cat" / "0.png", data / "cat" / f"copy {number}.png")
    ((item,),) = [finding.items for finding in check(data, ignore="imbalance").findings]
    assert (len(item.files), item.omitted) == (10, 16)


def test_the_holdout_must_not_contain_training_images(data, tmp_path):
    holdout = fill(tmp_path / "holdout" / "cat", first=50)
    shutil.copy(data / "cat" / "0.png", holdout / "same.png")
    photo(11).save(holdout / "similar.jpg", quality=90)
    (holdout / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = check(data, holdout=holdout.parent)
    assert code_files(report) == {
        "unreadable-image": ["cat/broken.png"],
        "holdout-overlap": ["cat/0.png", "cat/same.png"],
        "near-holdout-overlap": ["dog/11.png", "cat/similar.jpg"],
    }
    details = {finding.code: finding.items[0].detail for finding in report.findings}
    assert details["near-holdout-overlap"].endswith("different labels: 'cat', 'dog'")
    assert report.holdout_images == 6


def test_a_category_of_the_holdout_alone_is_a_warning(data, tmp_path):
    fill(tmp_path / "holdout" / "owl", first=50)
    report = check(data, holdout=tmp_path / "holdout")
    assert [(each.code, each.items[0].detail) for each in report.findings] == [("holdout-category", "'owl'")]


def test_a_holdout_without_pictures_in_common_passes(data, tmp_path):
    fill(tmp_path / "holdout" / "cat", first=50)
    assert check(data, holdout=tmp_path / "holdout").verdict == "passed"


@pytest.mark.parametrize(("missing", "severity"), [("imagehash", "warnings"), ("PIL", "errors")])
def test_a_missing_package_is_a_finding(data, monkeypatch, missing, severity):
    """Nobody is to believe that all was checked. Exact duplicates need no perceptual hashes."""
    shutil.copy(data / "cat" / "0.png", data / "cat" / "copy.png")
    photo(1).save(data / "cat" / "again.jpg")
    monkeypatch.setitem(sys.modules, missing, None)
    report = check(data)
    assert list(code_files(report)) == (
        ["duplicate-image", "check-skipped"] if missing == "imagehash" else ["check-skipped"]
    )
    assert report.verdict == severity
    assert "airflow-provider-osai[quality]" in report.findings[-1].items[0].detail


def flipped(hash_, bits, source):
    number = int.from_bytes(hash_)
    for bit in source.sample(range(256), bits):
        number ^= 1 << bit
    return number.to_bytes(32)


def compared_one_by_one(hashes, distance):
    """The groups by comparing each pair."""
    groups = [{index} for index in range(len(hashes))]
    for left in range(len(hashes)):
        for right in range(left):
            different = (int.from_bytes(hashes[left]) ^ int.from_bytes(hashes[right])).bit_count()
            if different <= distance:
                one, other = (next(group for group in groups if index in group) for index in (left, right))
                if one is not other:
                    groups.remove(other)
                    one |= other
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("distance", [0, 1, 12, 32])
@pytest.mark.parametrize("seed", range(4))
def test_the_groups_are_those_of_comparing_each_pair(distance, seed):
    source = random.Random(seed)
    hashes = [source.randbytes(32) for _ in range(12)]
    hashes += [flipped(source.choice(hashes[:12]), source.choice([0, 1, 6, 12, 13, 32, 33]), source) for _ in range(60)]
    source.shuffle(hashes)
    assert sorted(near_duplicate_groups(hashes, distance)) == compared_one_by_one(hashes, distance)


def test_many_hashes_are_grouped():
    """Of 20,000, half in pairs."""
    source = random.Random(1)
    hashes = [source.randbytes(32) for _ in range(15_000)]
    hashes += [flipped(hash_, 12, source) for hash_ in hashes[:5_000]]
    assert near_duplicate_groups(hashes, 12) == [[index, 15_000 + index] for index in range(5_000)]


@pytest.mark.parametrize("hashes", [[], [b"x" * 32]])
def test_fewer_than_two_hashes_have_no_groups(hashes):
    assert near_duplicate_groups(hashes, 12) == []


def test_the_nearest_hash_is_found(monkeypatch):
    """Also if not all are compared at once."""
    monkeypatch.setattr("airflow_provider_osai.data.quality.duplicates.MAX_COMPARISONS", 10)
    source = random.Random(2)
    others = [source.randbytes(32) for _ in range(8)]
    wanted = [(source.randrange(8), source.randrange(20)) for _ in range(30)]
    assert nearest([flipped(others[index], bits, source) for index, bits in wanted], others) == wanted
