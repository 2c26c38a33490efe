"""Groups to roles, and names from outside: the pure part of single sign-on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.access import ROLES
from app.core.people import name_from
from app.core.signon import (
    MOST_GROUPS,
    ROLE_ORDER,
    Grant,
    Identity,
    granted,
    grants_from,
    groups_in,
    has_too_many_groups,
    login_name,
    names_in,
)
from app.errors import InvalidInput

ALL = st.sampled_from(sorted(ROLES))
GRANTS = st.lists(
    st.builds(
        lambda group, role, accounts: Grant(group, role, None if role == "admin" else accounts),
        st.sampled_from("abcdef"),
        ALL,
        st.none() | st.frozensets(st.sampled_from("1234"), min_size=1),
    ),
    max_size=8,
)


def test_grants_are_read_in_both_ways_to_write_them() -> None:
    expected = (
        Grant("cloud admins", "admin", None),
        Grant("cn=finops,ou=groups,dc=example", "editor", None),
        Grant("/team/a", "viewer", frozenset({"1", "2"})),
    )
    lines = ["cloud admins = admin", "cn=finops,ou=groups,dc=example=editor", "/team/a=viewer 1, 2"]
    assert grants_from("\n".join(lines)) == grants_from(" ; ".join(lines) + ";") == expected
    assert grants_from("") == grants_from(" \r\n;") == ()


@pytest.mark.parametrize(
    "text", ["x", "=admin", " = admin", "x=", "x=root", "x=Admin", "x=admin 1", "x" * 300 + "=viewer"]
)
def test_what_is_no_grant_is_named(text: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        grants_from(f"good=viewer;{text}")
    assert repr(text[:60].strip()) in wrong.value.message


@settings(max_examples=60)
@given(GRANTS, st.frozensets(st.sampled_from("abcdefg")))
def test_nobody_gets_more_than_one_of_their_groups_gives(grants: list[Grant], groups: frozenset[str]) -> None:
    found = granted(groups, grants)
    mine = [grant for grant in grants if grant.group in groups]
    if not mine:
        assert found is None
        return
    assert found is not None
    role, accounts = found
    assert role == max((grant.role for grant in mine), key=ROLE_ORDER.index)
    # Each account that is seen with this role is given with this role by a group.
    sources = [grant for grant in mine if grant.role == role]
    if accounts is None:
        assert any(grant.accounts is None for grant in sources)
    else:
        assert accounts
        assert all(any(name in (grant.accounts or ()) for grant in sources) for name in accounts)


@settings(max_examples=60)
@given(GRANTS, st.frozensets(st.sampled_from("abcdefg")), st.frozensets(st.sampled_from("abcdefg")))
def test_more_groups_never_give_a_weaker_role(grants: list[Grant], some: frozenset[str], more: frozenset[str]) -> None:
    fewer, all_of_them = granted(some, grants), granted(some | more, grants)
    if fewer is not None:
        assert all_of_them is not None
        assert ROLE_ORDER.index(all_of_them[0]) >= ROLE_ORDER.index(fewer[0])


CLAIM_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["groups", "a", "a.b", "email", "_claim_names", "sub"]), CLAIM_VALUES))
def test_whatever_a_provider_says_groups_are_texts(claims: dict[str, Any]) -> None:
    found = groups_in(claims, ("groups", "a.b", "email", "a.b.c"))
    assert all(isinstance(group, str) and group for group in found)
    assert isinstance(has_too_many_groups(claims, ("groups",)), bool)
    identity = Identity("https://idp", "1", names_in(claims), found)
    for taken in (False, True):
        assert name_from(login_name(identity, taken=taken)) == login_name(identity, taken=taken)


@given(st.lists(st.text(max_size=300), max_size=4))
def test_any_name_becomes_one_of_ours(names: list[str]) -> None:
    identity = Identity("https://idp", "1", tuple(names), frozenset())
    plain, other = login_name(identity), login_name(identity, taken=True)
    assert name_from(plain) == plain
    assert name_from(other) == other
    assert plain != other


def test_groups_come_from_where_the_setting_says() -> None:
    claims = {
        "groups": ["a"],
        "realm_access": {"roles": ["b"]},
        "https://x/groups": "c",
        "hd": "example.org",
        "email": "d@example.org",
    }
    names = ("realm_access.roles", "https://x/groups", "hd", "email", "nothing", "groups.x")
    assert groups_in(claims, names) == {"b", "c", "example.org"}
    assert groups_in({**claims, "email_verified": True}, ("email",)) == {"d@example.org"}
    assert groups_in({**claims, "email_verified": "true"}, ("email",)) == frozenset()
    assert len(groups_in({"groups": [str(n) for n in range(5000)]}, ("groups",))) == MOST_GROUPS


def test_issuer_and_subject_make_the_user_and_nothing_else() -> None:
    ids = {
        Identity(issuer, subject, (name,), frozenset()).user_id
        for issuer, subject in (("https://a", "1"), ("https://a", "2"), ("https://b", "1"), ("https://a1", ""))
        for name in ("x", "y")
    }
    assert len(ids) == 4
