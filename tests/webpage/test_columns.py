from lungmix.webpage.columns import columns_of, title_of


def test_known_columns_come_first_and_every_other_is_kept():
    rows = [{"case": "a", "left_lung_ml": 1234.5, "lung_involvement": 12.3456, "score": 3.0}]
    columns = columns_of(rows)
    assert [column.key for column in columns] == ["score", "lung_involvement", "left_lung_ml"]
    assert [column.text(rows[0]) for column in columns] == ["3", "12.35", "1,234"]
    assert [column.first for column in columns] == [True, True, False]


def test_missing_and_undefined_values_are_empty_and_sort_as_none():
    rows = [{"case": "a", "mean_hu": float("nan")}, {"case": "b"}, {"case": "c", "mean_hu": -820.26}]
    (column,) = columns_of(rows)
    assert column.numeric
    assert [column.text(row) for row in rows] == ["", "", "−820.3"]
    assert [column.sort_key(row) for row in rows] == ["", "", "-820.26"]


def test_column_with_any_text_is_not_numeric():
    (column,) = columns_of([{"case": "a", "touches": "left"}])
    assert not column.numeric
    assert column.first, "where nothing is known, all is shown"


def test_columns_have_their_meaning_of_the_data_dictionary():
    columns = columns_of([{"case": "a", "perc15": -900.0, "mask": "paper", "new": 1}])
    assert [column.meaning for column in columns if column.key in ("perc15", "new")] == [
        "15th percentile of lung voxels, linear interpolation",
        "",
    ]
    (mask,) = (column for column in columns if column.key == "mask")
    assert mask.title == "Mask preset"
    assert "“paper” with sizes in voxels, as published" in mask.meaning


def test_titles_end_in_units():
    assert title_of("right_lung_ml") == "Right lung (mL)"
    assert title_of("left_laa950") == "Left LAA −950 (%)"
    assert title_of("right_haa_above_700") == "Right HAA above −700 (%)"
    assert title_of("aerated_950_800") == "Aerated −950 to −800 (%)"
    assert title_of("left_lung_involvement") == "Left lung involvement (%)"
    assert title_of("right_perc15") == "Right Perc15 (HU)"
    assert title_of("sd_hu") == "SD (HU)"
    assert title_of("lung_mass_g") == "Lung mass (g)"
    assert title_of("g") == "G"


def test_no_rows_make_no_columns():
    assert columns_of([]) == []
    assert columns_of([{"case": "a"}]) == []
