"""What `check` answers, in the shapes that tests ask for."""

from hansa_crds import HansaObject, Problem, check


def told(data: object) -> dict[str, Problem]:
    """Problems by path, of data that has no two at one path."""
    found, bad = check(data)
    assert found is None
    assert len({each.path for each in bad}) == len(bad)
    return {each.path: each for each in bad}


def only(data: object) -> Problem:
    """The one problem of data."""
    _, bad = check(data)
    assert len(bad) == 1, bad
    return bad[0]


def read(data: object) -> HansaObject:
    found, bad = check(data)
    assert bad == ()
    assert found is not None
    return found
