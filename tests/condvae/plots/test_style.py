from condvae.plots import style_samplers

NAMES = [
    "ipa",
    "untrained",
    "prior",
    "ipa_t0.7",
    "ipa_t1.3",
    "lama",
    "mat",
    "a",
    "b",
    "c",
    "d",
    "e",
]


def test_every_sampler_has_a_style_of_its_own():
    styles = style_samplers(NAMES)
    assert list(sorted(styles)) == sorted(NAMES)
    assert len(set(styles.values())) == len(NAMES)
    assert len({styles[name].colour for name in NAMES[:9]}) == 9


def test_a_name_alone_keeps_the_style_it_has_in_company():
    for name in ("ipa", "prior", "lama"):
        company = style_samplers([name, "untrained", "ipa_t0.7", "ipa_t1.3"])
        assert style_samplers([name])[name] == company[name]


def test_adding_samplers_at_the_end_changes_none_before_them():
    few, many = style_samplers(NAMES[:5]), style_samplers(NAMES)
    assert {name: many[name] for name in few} == few


def test_repeated_names_count_once():
    assert style_samplers(["x", "x", "y"]) == style_samplers(["x", "y"])
