"""Attacks on single sign-on (OpenID Connect), each against the whole app and a provider that is asked over HTTP."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask.testing import FlaskClient
from joserfc.jwk import OctKey

from app import access, signon
from app.adapters import oidc
from app.core.people import broken_at
from app.errors import Unavailable
from app.web import create_app
from tests.access.conftest import MINE, PASSWORD, Clock, Door, closed, form_token
from tests.access.test_signin import ELSEWHERE, cookie_of
from tests.identityprovider import (
    CLIENT,
    EC,
    RSA,
    RSA_NEXT,
    SECRET,
    Claims,
    FakeProvider,
    Person,
    fake_provider,
    led_back,
)

ROLES = f"admins=admin; finops=editor; team-a=viewer {MINE}; team-b=viewer 222222222222; cn=x,ou=y=analyst"
HOME = "http://127.0.0.1:8050"


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    clock = Clock()
    with fake_provider(lambda: clock.now.timestamp()) as found:
        found.test_clock = clock  # type: ignore[attr-defined]
        yield found


@pytest.fixture(scope="module")
def shared(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    found = with_sign_on(tmp_path_factory.mktemp("signon"), provider)
    yield found
    found.backends.metadata.close()


@pytest.fixture
def sso(shared: Door, provider: FakeProvider) -> Door:
    """A deployment with single sign-on, the provider as good as new, and nothing known of it."""
    shared.wait(hours=13)
    provider.__init__(lambda: shared.clock.now.timestamp(), provider.port)  # type: ignore[misc]
    provider.person = Person(sub=f"sub-{shared.clock.now:%d%H%M%S}", preferred_username=f"ada{shared.clock.now:%d%H}")
    ticks = [time.monotonic()]
    adapter = shared.backends.identities
    assert isinstance(adapter, oidc.Oidc)
    adapter._discovery, adapter._keys, adapter._ticks = oidc._Kept(), oidc._Kept(), lambda: ticks[0]
    adapter._seconds = oidc.SECONDS
    shared.gate.forget_all()
    return shared


def with_sign_on(root: Path, provider: FakeProvider, **settings: Any) -> Door:
    given = {
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT,
        "oidc_client_secret": _Secret(SECRET),
        "oidc_roles": ROLES,
        "oidc_name": "Example Login",
        "public_url": HOME,
        **settings,
    }
    door = closed(root, **given)
    provider.clock = lambda: door.clock.now.timestamp()
    return door


class _Secret:
    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value


def adapter_of(door: Door) -> oidc.Oidc:
    assert isinstance(door.backends.identities, oidc.Oidc)
    return door.backends.identities


def later(door: Door, seconds: float) -> None:
    """For what the adapter keeps."""
    now = adapter_of(door)._ticks()
    adapter_of(door)._ticks = lambda: now + seconds + 0.001  # (x + s) - x may fall short of s


def begin(door: Door, client: FlaskClient, target: str = "") -> str:
    answer = client.get("/login/sso" + (f"?next={quote(target)}" if target else ""))
    assert answer.status_code == 303, answer.get_data(as_text=True)[-900:]
    return str(answer.headers["Location"])


def come_back(client: FlaskClient, address: str) -> Any:
    assert address.startswith(f"{HOME}/login/callback?"), address
    return client.get(address.removeprefix(HOME))


def sign_on(door: Door, client: FlaskClient | None = None) -> Any:
    client = client or door.client()
    return come_back(client, led_back(begin(door, client)))


def refused(door: Door, answer: Any, status: int = 401) -> str:
    """It was, with a sentence, without a session, and on record. Says the sentence."""
    text = answer.get_data(as_text=True)
    assert answer.status_code == status, text[-600:]
    assert not [c for c in answer.headers.getlist("Set-Cookie") if c.startswith("spendscope=")]
    assert "Traceback" not in text
    if status == 401:
        assert notes(door)[-1][1:] == ("single sign-on", "refused")
    return str(text.split('role="alert">')[1].split("<")[0])


def notes(door: Door) -> list[tuple[str, str, str]]:
    """The newest."""
    entries = door.backends.metadata.audit(limit=10, after=max(0, door.backends.metadata.audit_length() - 10))
    return [(entry.note.who, entry.note.what, entry.note.result) for entry in entries]


def changed(address: str, **values: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode({**dict(parse_qsl(parts.query)), **values})}"


def user(door: Door, provider: FakeProvider) -> Any:
    [found] = [u for u in door.backends.metadata.users() if u.subject == f"{provider.issuer} {provider.person.sub}"]
    return found


# --- the way there and back ---------------------------------------------------------------------------------------


def test_signing_on_makes_a_user_of_the_groups_and_leads_back(sso: Door, provider: FakeProvider) -> None:
    client = sso.client()
    page = client.get("/login?next=/data%3Fday%3D2026-11-01").get_data(as_text=True)
    assert '<a class="button primary door-on" href="/login/sso?next=/data%3Fday%3D2026-11-01">' in page
    there = begin(sso, client, "/data?day=2026-11-01")
    asked = {name: value for name, [value] in parse_qs(urlsplit(there).query).items()}
    assert there.startswith(f"{provider.issuer}/authorize?")
    assert asked["response_type"] == "code"
    assert asked["client_id"] == CLIENT
    assert asked["redirect_uri"] == f"{HOME}/login/callback"
    assert asked["code_challenge_method"] == "S256"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43
    answer = come_back(client, led_back(there))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/data?day=2026-11-01")
    assert client.get("/account").status_code == 200
    made = user(sso, provider)
    assert (made.role, made.accounts, made.password) == ("editor", None, None)
    assert made.name == provider.person.preferred_username
    assert [entry[1:] for entry in notes(sso)[-2:]] == [("add user", "done"), ("sign in", "done")]
    before = len(sso.backends.metadata.users())
    assert sign_on(sso).status_code == 303
    assert len(sso.backends.metadata.users()) == before


def test_signatures_with_other_key_pairs_are_taken(sso: Door, provider: FakeProvider) -> None:
    provider.key, provider.algorithm = EC, "ES256"
    assert sign_on(sso).status_code == 303
    provider.key, provider.algorithm = RSA, "PS256"
    assert sign_on(sso).status_code == 303


def test_a_provider_that_takes_the_secret_in_the_form_only_gets_it_there(sso: Door, provider: FakeProvider) -> None:
    provider.discovery = lambda d: {**d, "token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert sign_on(sso).status_code == 303
    assert provider.token_requests[-1]["client_secret"] == SECRET


def test_a_wrong_state_is_refused(sso: Door) -> None:
    client = sso.client()
    back = led_back(begin(sso, client))
    for state in ("", "x", "A" * 43, access.new_secret()):
        assert "not begun in this browser" in refused(sso, come_back(client, changed(back, state=state)))
    assert come_back(client, back).status_code == 303


def test_a_callback_that_was_never_begun_is_refused(sso: Door, provider: FakeProvider) -> None:
    for query in ("", "?code=x", "?state=x", "?code=x&state=" + "A" * 43, "?error=access_denied"):
        refused(sso, sso.client().get(f"/login/callback{query}"))
        sso.wait(minutes=1)
    assert provider.count("/token") == 0


def test_another_browser_cannot_bring_the_answer_back(sso: Door, provider: FakeProvider) -> None:
    """Login CSRF: an attacker who makes somebody's browser come back with the attacker's code."""
    attacker, victim = sso.client(), sso.client()
    back = led_back(begin(sso, attacker))
    refused(sso, come_back(victim, back))
    begin(sso, victim)
    back = led_back(begin(sso, attacker))
    refused(sso, come_back(victim, back))
    assert victim.get("/account").status_code == 303
    assert provider.count("/token") == 0


def test_a_sign_in_is_used_once(sso: Door) -> None:
    client = sso.client()
    back = led_back(begin(sso, client))
    seed = client.get_cookie("spendscope-signon")
    assert come_back(client, back).status_code == 303
    assert seed
    client.set_cookie("spendscope-signon", seed.value)
    assert "used already" in refused(sso, come_back(client, back))


def test_a_code_is_used_once(sso: Door) -> None:
    """Somebody else's code, or one that was seen before, in a sign-in that was begun properly."""
    client = sso.client()
    used = dict(parse_qsl(urlsplit(led_back(begin(sso, client))).query))["code"]
    again = led_back(begin(sso, client))
    fresh = dict(parse_qsl(urlsplit(again).query))["code"]
    assert come_back(client, again).status_code == 303
    for code in (fresh, "guessed"):
        back = changed(led_back(begin(sso, client)), code=code)
        assert "invalid_grant" in refused(sso, come_back(client, back))
    # One of another sign-in of this very browser: its verifier is not this one's.
    back = changed(led_back(begin(sso, client)), code=used)
    assert "invalid_grant" in refused(sso, come_back(client, back))


def test_a_sign_in_expires(sso: Door) -> None:
    client = sso.client()
    back = led_back(begin(sso, client))
    sso.wait(minutes=10)
    assert "took too long" in refused(sso, come_back(client, back))


def test_two_tabs_of_a_browser_do_not_disturb_each_other(sso: Door) -> None:
    client = sso.client()
    first, second = (led_back(begin(sso, client, f"/data?tab={n}")) for n in (1, 2))
    answer = come_back(client, first)
    assert answer.headers["Location"] == "/data?tab=1"
    assert "used already" in refused(sso, come_back(client, second))


def test_a_parameter_that_comes_twice_is_refused(sso: Door) -> None:
    client = sso.client()
    back = led_back(begin(sso, client))
    for name in ("code", "state", "error", "iss"):
        answer = come_back(client, f"{back}&{name}=a&{name}=b")
        refused(sso, answer, 400)
    refused(sso, come_back(client, f"{back}&error={'x' * 5000}"), 400)
    assert come_back(client, back).status_code == 303


@pytest.mark.parametrize("target", ELSEWHERE)
def test_next_leads_nowhere_else(sso: Door, target: str) -> None:
    client = sso.client()
    sso.wait(minutes=1)
    answer = come_back(client, led_back(begin(sso, client, target)))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_next_is_looked_at_on_the_way_back_too(sso: Door) -> None:
    client = sso.client()
    there = begin(sso, client, "/data")
    state = dict(parse_qsl(urlsplit(there).query))["state"]
    key = access.digest_of(state)
    kept = sso.backends.metadata.take_once(key, "sign-on", sso.clock.now)
    assert kept
    sso.backends.metadata.put_once(
        key, "sign-on", sso.clock.now + timedelta(minutes=5), {**kept, "next": "//evil.example"}
    )
    assert come_back(client, led_back(there)).headers["Location"] == "/"


def test_an_error_of_the_provider_is_a_sentence_and_never_markup(sso: Door) -> None:
    client = sso.client()
    for said, shown in (("access_denied", "access_denied"), ("<script>x</script>", "an error"), ("x" * 99, "an error")):
        state = dict(parse_qsl(urlsplit(begin(sso, client)).query))["state"]
        query = urlencode({"state": state, "error": said, "error_description": "<b>evil.example</b>"})
        answer = client.get(f"/login/callback?{query}")
        assert f"({shown})" in refused(sso, answer)
        assert "evil.example" not in answer.get_data(as_text=True)


def test_no_header_changes_where_the_provider_sends_people(sso: Door) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    there = sso.client().get("/login/sso", headers=headers).headers["Location"]
    assert dict(parse_qsl(urlsplit(there).query))["redirect_uri"] == f"{HOME}/login/callback"


def test_beginning_is_slowed_by_place(sso: Door) -> None:
    client = sso.client()
    statuses = [client.get("/login/sso").status_code for _ in range(32)]
    assert statuses == [303] * 30 + [429] * 2


# --- PKCE ---------------------------------------------------------------------------------------------------------


def test_a_challenge_always_goes_out_and_its_verifier_always_comes(sso: Door, provider: FakeProvider) -> None:
    sign_on(sso)
    assert len(provider.token_requests[-1]["code_verifier"]) == 43


def test_a_provider_without_s256_is_not_used(sso: Door, provider: FakeProvider) -> None:
    """Downgrade: a document that offers `plain` only would put the verifier itself into the address."""
    provider.discovery = lambda d: {**d, "code_challenge_methods_supported": ["plain"]}
    assert "PKCE" in refused(sso, sso.client().get("/login/sso"), 503)


def test_a_provider_that_does_not_list_methods_is_asked_with_s256(sso: Door, provider: FakeProvider) -> None:
    def silent(document: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in document.items() if name != "code_challenge_methods_supported"}

    provider.discovery = silent
    assert "code_challenge_method=S256" in begin(sso, sso.client())


def test_a_code_of_a_request_whose_challenge_was_taken_out_is_worth_nothing(sso: Door) -> None:
    client = sso.client()
    there = begin(sso, client)
    values = {k: v for k, v in parse_qsl(urlsplit(there).query) if not k.startswith("code_challenge")}
    back = led_back(f"{there.split('?')[0]}?{urlencode(values)}")
    assert "invalid_grant" in refused(sso, come_back(client, back))


# --- ID tokens ----------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(header: dict[str, Any], claims: Claims) -> str:
    return f"{b64(json.dumps({**header, 'alg': 'none'}).encode())}.{b64(json.dumps(claims).encode())}."


def hs256_with(secret: bytes) -> Callable[[dict[str, Any], Claims], str]:
    def sign(header: dict[str, Any], claims: Claims) -> str:
        text = f"{b64(json.dumps({**header, 'alg': 'HS256'}).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{text}.{b64(hmac.new(secret, text.encode(), sha256).digest())}"

    return sign


def another_signature(header: dict[str, Any], claims: Claims) -> str:
    from joserfc import jws

    return jws.serialize_compact(header, json.dumps(claims).encode(), RSA_NEXT, ["RS256"])


def swapped_payload(header: dict[str, Any], claims: Claims) -> str:
    from joserfc import jws

    head, _, signature = jws.serialize_compact(header, json.dumps(claims).encode(), RSA, ["RS256"]).split(".")
    return f"{head}.{b64(json.dumps({**claims, 'groups': ['admins']}).encode())}.{signature}"


PUBLIC_FORMS = (RSA.as_pem(private=False), RSA.as_der(private=False), json.dumps(RSA.as_dict(private=False)).encode())
SIGNATURES: dict[str, Callable[[dict[str, Any], Claims], str]] = {
    "none": unsigned,
    "None": lambda h, c: unsigned(h, c).replace(b64(b'{"alg": "none"'), b64(b'{"alg": "nOnE"')),
    "hs256 with the public key as PEM": hs256_with(PUBLIC_FORMS[0]),
    "hs256 with the public key as DER": hs256_with(PUBLIC_FORMS[1]),
    "hs256 with the public key as JWK": hs256_with(PUBLIC_FORMS[2]),
    "hs256 with the client secret": hs256_with(SECRET.encode()),
    "hs256 with nothing": hs256_with(b""),
    "a key that is not the provider's": another_signature,
    "another payload under a good signature": swapped_payload,
    "no signature": lambda h, c: unsigned({**h, "alg": "RS256"}, c)[:-1],
    "empty signature": lambda h, c: f"{b64(json.dumps(h).encode())}.{b64(json.dumps(c).encode())}.",
    "not a token": lambda _h, _c: "a.b.c",
    "encrypted": lambda _h, _c: "a.b.c.d.e",
    "no JSON object": lambda h, _c: f"{b64(json.dumps(h).encode())}.{b64(b'[]')}.AA",
    "own key in the header": lambda h, c: another_signature({**h, "jwk": RSA_NEXT.as_dict(private=False)}, c),
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_forged_signature_is_refused(sso: Door, provider: FakeProvider, kind: str) -> None:
    provider.sign = SIGNATURES[kind]
    assert "does not hold" in refused(sso, sign_on(sso))


def test_keys_from_an_address_in_the_token_are_not_fetched(sso: Door, provider: FakeProvider) -> None:
    for name in ("jku", "x5u"):
        provider.sign = lambda h, c, name=name: another_signature({**h, name: f"{provider.issuer}/evil"}, c)  # type: ignore[misc]
        refused(sso, sign_on(sso))
    assert provider.count("/evil") == 0


CLAIMS: dict[str, Callable[[Claims], Claims]] = {
    "wrong nonce": lambda c: {**c, "nonce": "A" * 43},
    "no nonce": lambda c: {k: v for k, v in c.items() if k != "nonce"},
    "nonce as list": lambda c: {**c, "nonce": [c["nonce"]]},
    "wrong issuer": lambda c: {**c, "iss": "https://evil.example"},
    "issuer with a slash": lambda c: {**c, "iss": c["iss"] + "/"},
    "issuer as list": lambda c: {**c, "iss": [c["iss"]]},
    "no issuer": lambda c: {k: v for k, v in c.items() if k != "iss"},
    "wrong audience": lambda c: {**c, "aud": "another-client"},
    "no audience": lambda c: {k: v for k, v in c.items() if k != "aud"},
    "empty audience": lambda c: {**c, "aud": []},
    "for several, no authorized party": lambda c: {**c, "aud": [CLIENT, "another-client"]},
    "for several, another authorized party": lambda c: {**c, "aud": [CLIENT, "other"], "azp": "other"},
    "another authorized party": lambda c: {**c, "azp": "another-client"},
    "expired": lambda c: {**c, "iat": c["iat"] - 600, "exp": c["iat"] - 61},
    "never expires": lambda c: {k: v for k, v in c.items() if k != "exp"},
    "expiry as text": lambda c: {**c, "exp": "9999999999"},
    "expiry not a number": lambda c: {**c, "exp": float("nan")},
    "not valid yet": lambda c: {**c, "nbf": c["iat"] + 61},
    "issued in the future": lambda c: {**c, "iat": c["iat"] + 61},
    "issued at no time": lambda c: {k: v for k, v in c.items() if k != "iat"},
    "nobody": lambda c: {k: v for k, v in c.items() if k != "sub"},
    "empty subject": lambda c: {**c, "sub": ""},
    "subject as number": lambda c: {**c, "sub": 1},
    "subject too long": lambda c: {**c, "sub": "x" * 256},
    "another access token": lambda c: {**c, "at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_token_that_is_not_of_this_sign_in_is_refused(sso: Door, provider: FakeProvider, kind: str) -> None:
    provider.claims = CLAIMS[kind]
    assert "does not hold" in refused(sso, sign_on(sso))


def test_clocks_may_differ_by_less_than_a_minute(sso: Door, provider: FakeProvider) -> None:
    provider.claims = lambda c: {**c, "exp": c["iat"] - 50, "nbf": c["iat"] + 50, "iat": c["iat"] + 50}
    assert sign_on(sso).status_code == 303


def test_several_audiences_with_us_as_authorized_party_are_fine(sso: Door, provider: FakeProvider) -> None:
    provider.claims = lambda c: {**c, "aud": [CLIENT, "api"], "azp": CLIENT}
    assert sign_on(sso).status_code == 303


def test_an_answer_of_another_provider_is_refused(sso: Door, provider: FakeProvider) -> None:
    """Mix-up (RFC 9207): the code must not be given to a token endpoint that it is not of."""
    client = sso.client()
    back = led_back(begin(sso, client))
    assert "not from" in refused(sso, come_back(client, f"{back}&iss=https%3A%2F%2Fevil.example"))
    assert provider.count("/token") == 0
    assert come_back(client, f"{led_back(begin(sso, client))}&iss={quote(provider.issuer)}").status_code == 303


def test_a_provider_that_names_itself_does_so_always(sso: Door, provider: FakeProvider) -> None:
    provider.names_itself = True
    assert sign_on(sso).status_code == 303
    client = sso.client()
    back = led_back(begin(sso, client))
    without = back.split("&iss=")[0]
    assert "not from" in refused(sso, come_back(client, without))


# --- keys ---------------------------------------------------------------------------------------------------------


def test_a_new_key_is_found_when_a_token_names_it(sso: Door, provider: FakeProvider) -> None:
    assert sign_on(sso).status_code == 303
    provider.key, provider.keys = RSA_NEXT, [RSA_NEXT]
    later(sso, oidc.KEYS_AGAIN)
    assert sign_on(sso).status_code == 303
    assert provider.count("/keys") == 2
    provider.key = RSA
    assert "does not hold" in refused(sso, sign_on(sso))


def test_a_key_that_was_taken_away_is_forgotten(sso: Door, provider: FakeProvider) -> None:
    assert sign_on(sso).status_code == 303
    provider.keys = [RSA_NEXT]
    later(sso, oidc.KEYS_KEPT)
    assert "does not hold" in refused(sso, sign_on(sso))


def test_a_flood_of_unknown_keys_is_no_flood_of_questions(sso: Door, provider: FakeProvider) -> None:
    for n in range(12):
        provider.header = {"kid": f"unknown-{n}"}
        refused(sso, sign_on(sso))
        sso.wait(minutes=1)
    assert provider.count("/keys") == 1
    provider.header = {}
    assert sign_on(sso).status_code == 303


def test_without_a_key_id_the_only_key_is_meant(sso: Door, provider: FakeProvider) -> None:
    provider.header = {"kid": None}
    refused(sso, sign_on(sso))
    provider.keys = [RSA]
    later(sso, oidc.KEYS_KEPT)
    assert sign_on(sso).status_code == 303


SHARED = OctKey.import_key(b"a shared secret of 32 characters!", {"kid": "rsa-1"})
_SHORT_NUMBER = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n
SHORT = {"kty": "RSA", "kid": "rsa-1", "e": "AQAB", "n": b64(_SHORT_NUMBER.to_bytes(128, "big"))}


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{}],
        [None, 1, "x", []],
        [{"kty": "RSA", "kid": "rsa-1", "n": "!", "e": "AQAB"}],
        [SHARED.as_dict(private=True)],
        [SHORT],
        [{**RSA.as_dict(private=False), "use": "enc"}],
    ],
    ids=["none", "empty", "no keys", "broken", "shared", "short", "to encrypt"],
)
def test_keys_that_are_no_public_signing_keys_are_not_used(sso: Door, provider: FakeProvider, keys: list[Any]) -> None:
    provider.keys = keys
    if keys and isinstance(keys[0], dict) and keys[0].get("kty") == "oct":
        provider.sign = hs256_with(b"a shared secret of 32 characters!")
    assert "no key that can be used" in refused(sso, sign_on(sso), 503)


def test_unknown_kinds_of_keys_beside_good_ones_do_no_harm(sso: Door, provider: FakeProvider) -> None:
    provider.keys = [{"kty": "AKP", "kid": "new"}, {"kty": "EC", "crv": "P-999", "x": "", "y": ""}, RSA]
    assert sign_on(sso).status_code == 303


# --- a provider that does not behave ------------------------------------------------------------------------------

CONFIGURATION = "/.well-known/openid-configuration"
BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another issuer": lambda d: {**d, "issuer": "https://evil.example"},
    "issuer with a slash": lambda d: {**d, "issuer": d["issuer"] + "/"},
    "no issuer": lambda d: {k: v for k, v in d.items() if k != "issuer"},
    "a list": lambda _: [],
    "no token endpoint": lambda d: {k: v for k, v in d.items() if k != "token_endpoint"},
    "script as address": lambda d: {**d, "authorization_endpoint": "javascript:alert(1)"},
    "address with a user": lambda d: {**d, "token_endpoint": "http://u:p@127.0.0.1/"},
    "address with a line break": lambda d: {**d, "authorization_endpoint": d["issuer"] + "/a\r\nSet-Cookie: x=1"},
    "file as keys": lambda d: {**d, "jwks_uri": "file:///etc/passwd"},
    "address as list": lambda d: {**d, "jwks_uri": [d["jwks_uri"]]},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_discovery_document_that_cannot_be_trusted_is_not_used(sso: Door, provider: FakeProvider, kind: str) -> None:
    provider.discovery = BAD[kind]
    answer = sso.client().get("/login/sso")
    refused(sso, answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert "Sign in with Example Login" in answer.get_data(as_text=True)


def test_beyond_loopback_every_address_of_the_provider_is_https(sso: Door) -> None:
    issuer = "https://login.example.org"
    client = oidc.Client(issuer, CLIENT, SECRET, "openid", ("groups",), HOME, HOME)
    found = oidc.Oidc(client, lambda: 0.0)
    document = {"issuer": issuer, "authorization_endpoint": issuer, "token_endpoint": issuer, "jwks_uri": issuer}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint"):
        found._json = lambda _, name=name: {**document, name: "http://login.example.org/x"}  # type: ignore[method-assign, misc]
        with pytest.raises(Unavailable, match=name):
            found._ask_discovery()


@pytest.mark.parametrize("path", [CONFIGURATION, "/keys", "/token"])
@pytest.mark.parametrize("kind", ["redirect", "500", "page", "huge", "nested", "empty"])
def test_whatever_the_provider_answers_it_is_a_page_and_never_a_500(
    sso: Door, provider: FakeProvider, path: str, kind: str
) -> None:
    huge = b'{"keys": [' + b'{"kty": "RSA"},' * 40_000 + b"{}]}"
    provider.answers[path] = {
        "redirect": (302, {"Location": f"{provider.issuer}/elsewhere"}, b""),
        "500": (500, {}, b"{}"),
        "page": (200, {"Content-Type": "text/html"}, b"<h1>Maintenance</h1>"),
        "huge": (200, {}, huge),
        "nested": (200, {}, b"[" * 200_000),
        "empty": (200, {}, b""),
    }[kind]
    client = sso.client()
    answer = client.get("/login/sso")
    if path != CONFIGURATION:
        answer = come_back(client, led_back(answer.headers["Location"]))
    refused(sso, answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert provider.count("/elsewhere") == 0
    assert client.get("/login").status_code == 200


@pytest.mark.parametrize("where", ["document", "keys", "token"])
def test_no_answer_is_read_without_end_however_good_it_is(sso: Door, provider: FakeProvider, where: str) -> None:
    padding = "y" * oidc.MOST_BYTES
    if where == "document":
        provider.discovery = lambda d: {**d, "x": padding}
    elif where == "keys":
        provider.keys = [RSA, {"kty": "unknown", "x": padding}]
    else:
        provider.token_answer = lambda a: {**a, "x": padding}
    client = sso.client()
    answer = client.get("/login/sso")
    if where != "document":
        answer = come_back(client, led_back(answer.headers["Location"]))
    assert "more than 512 KiB" in refused(sso, answer, 503)


@pytest.mark.parametrize("path", [CONFIGURATION, "/keys"])
def test_a_provider_that_sends_a_byte_now_and_then_does_not_hold_us(
    sso: Door, provider: FakeProvider, path: str
) -> None:
    adapter_of(sso)._seconds = 0.4
    provider.drip[path] = 0.1
    client = sso.client()
    began = time.monotonic()
    answer = client.get("/login/sso")
    if path != CONFIGURATION:
        answer = come_back(client, led_back(answer.headers["Location"]))
    refused(sso, answer, 503)
    assert time.monotonic() - began < 3
    # And it is left alone for a while: others need not wait as long.
    began, asked = time.monotonic(), provider.count(path)
    refused(sso, client.get("/login/sso") if path == CONFIGURATION else sign_on(sso), 503)
    assert provider.count(path) == asked


def test_a_provider_that_is_down_is_a_page_with_503(sso: Door, provider: FakeProvider, tmp_path: Path) -> None:
    adapter = adapter_of(sso)
    client = replace(adapter.client, issuer="http://127.0.0.1:9")
    shut, adapter.client = adapter.client, client
    try:
        answer = sso.client().get("/login/sso")
    finally:
        adapter.client = shut
    assert "does not answer" in refused(sso, answer, 503)
    assert answer.mimetype == "text/html"
    assert int(answer.headers["Retry-After"]) > 0


def test_a_wrong_client_secret_is_said_to_be_one(sso: Door, provider: FakeProvider) -> None:
    provider.answers["/token"] = (401, {}, b'{"error": "invalid_client"}')
    assert "SPENDSCOPE_OIDC_CLIENT_ID" in refused(sso, sign_on(sso), 503)


def test_an_answer_without_an_id_token_is_refused(sso: Door, provider: FakeProvider) -> None:
    for value in (None, 1, "x" * 100_000, {"a": 1}):
        provider.token_answer = lambda a, value=value: {**a, "id_token": value}  # type: ignore[misc]
        assert "no ID token" in refused(sso, sign_on(sso), 503)


# --- groups -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups", [[], ["others"], ["ADMINS"], ["admin"], ["admins "], "others", None, {"admins": 1}, [["admins"]]]
)
def test_who_is_in_no_group_that_counts_is_not_let_in(sso: Door, provider: FakeProvider, groups: Any) -> None:
    provider.person.groups = groups
    assert "none of your groups gives you a role" in refused(sso, sign_on(sso))
    assert not [u for u in sso.backends.metadata.users() if provider.person.sub in (u.subject or "")]


@pytest.mark.parametrize(
    ("groups", "role", "accounts"),
    [
        (["finops", "others"], "editor", None),
        (["admins", "team-a"], "admin", None),
        (["team-a"], "viewer", {MINE}),
        (["team-a", "team-b"], "viewer", {MINE, "222222222222"}),
        (["cn=x,ou=y", "team-a"], "analyst", None),
        ("team-b", "viewer", {"222222222222"}),
    ],
)
def test_groups_give_role_and_accounts(
    sso: Door, provider: FakeProvider, groups: Any, role: str, accounts: set[str] | None
) -> None:
    provider.person.groups = groups
    assert sign_on(sso).status_code == 303
    found = user(sso, provider)
    assert (found.role, found.accounts and set(found.accounts)) == (role, accounts)


def test_groups_are_looked_at_again_at_each_sign_in(sso: Door, provider: FakeProvider) -> None:
    provider.person.groups = ["admins"]
    first = sso.client()
    sign_on(sso, first)
    assert first.get("/metrics").status_code == 200
    provider.person.groups = ["team-a"]
    second = sso.client()
    sign_on(sso, second)
    sso.gate.forget_all()
    assert first.get("/metrics").status_code == second.get("/metrics").status_code == 403
    assert user(sso, provider).accounts == {MINE}


def test_who_lost_the_group_is_out_with_sessions_and_tokens(sso: Door, provider: FakeProvider) -> None:
    client = sso.client()
    sign_on(sso, client)
    token, _ = access.create_token(sso.backends, user(sso, provider).name, "t", ["read"], 1)
    ask = {"headers": {"Authorization": f"Bearer {token}"}}
    assert sso.client().get("/api/v1/jobs", **ask).status_code == 200
    provider.person.groups = ["others"]
    refused(sso, sign_on(sso))
    sso.gate.forget_all()
    assert client.get("/account").status_code == 303
    assert sso.client().get("/api/v1/jobs", **ask).status_code == 401
    provider.person.groups = ["finops"]
    assert sign_on(sso).status_code == 303
    assert sso.client().get("/api/v1/jobs", **ask).status_code == 200


def test_tokens_rest_while_their_person_does_not_come_back(sso: Door, provider: FakeProvider) -> None:
    """Who is gone from the provider cannot sign in, and nobody else tells us."""
    sign_on(sso)
    token, _ = access.create_token(sso.backends, user(sso, provider).name, "t", ["read"], 365)
    access.add_user(sso.backends, local := f"local{sso.clock.now:%d%H%M%S}", "viewer", None, PASSWORD)
    other, _ = access.create_token(sso.backends, local, "t", ["read"], 365)
    settings = sso.backends.settings

    def answers(days: int, secret: str = token) -> int:
        object.__setattr__(sso.backends, "settings", settings.model_copy(update={"oidc_token_days": days}))
        sso.gate.forget_all()
        return int(sso.client().get("/api/v1/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code)

    sso.wait(days=29)
    assert answers(30) == 200
    sso.wait(days=1)
    assert (answers(30), answers(31), answers(0), answers(30, other)) == (401, 200, 200, 200)
    sign_on(sso)
    assert answers(30) == 200
    object.__setattr__(sso.backends, "settings", settings)


def test_groups_that_do_not_fit_into_a_token_are_said_to_be_too_many(sso: Door, provider: FakeProvider) -> None:
    provider.claims = lambda c: {
        **{k: v for k, v in c.items() if k != "groups"},
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": f"{provider.issuer}/evil"}},
    }
    assert "more groups than" in refused(sso, sign_on(sso))
    assert provider.count("/evil") == 0


# --- who it is ----------------------------------------------------------------------------------------------------


def test_a_user_is_known_by_the_subject_and_not_by_name_or_address(sso: Door, provider: FakeProvider) -> None:
    """Another person who was given the same name or address is another user."""
    sign_on(sso)
    first = user(sso, provider)
    provider.person = Person(
        sub=provider.person.sub + "x",
        preferred_username=provider.person.preferred_username,
        email=provider.person.email,
        groups=["team-a"],
    )
    assert sign_on(sso).status_code == 303
    second = user(sso, provider)
    assert second.id != first.id
    assert second.name.startswith(f"{first.name}+")
    assert (sso.backends.metadata.user(first.id).role, second.role) == ("editor", "viewer")  # type: ignore[union-attr]


def test_a_local_user_is_not_taken_over_by_a_name(sso: Door, provider: FakeProvider) -> None:
    name = provider.person.preferred_username.lower()
    local = access.add_user(sso.backends, name, "admin", None, PASSWORD)
    client = sso.client()
    sign_on(sso, client)
    assert client.get("/metrics").status_code == 403
    assert user(sso, provider).name.startswith(f"{name}+")
    assert sso.backends.metadata.user(local.id) == local


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "ADMIN\u202e", "../../etc", "a" * 300, "\n\r", "ａｄａ", "'; DROP TABLE user; --"],
)
def test_hostile_names_become_plain_ones(sso: Door, provider: FakeProvider, name: str) -> None:
    provider.person.preferred_username, provider.person.email = name, ""
    provider.person.more = {"name": name}
    client = sso.client()
    assert sign_on(sso, client).status_code == 303
    found = user(sso, provider)
    assert access.name_from(found.name) == found.name
    assert "<script>alert" not in client.get("/account").get_data(as_text=True)


def test_a_disabled_user_stays_out(sso: Door, provider: FakeProvider) -> None:
    client = sso.client()
    sign_on(sso, client)
    access.set_disabled(sso.backends, user(sso, provider).name, True)
    assert "shut you out" in refused(sso, sign_on(sso))
    provider.person.groups = ["admins"]
    refused(sso, sign_on(sso))
    assert user(sso, provider).disabled
    sso.gate.forget_all()
    assert client.get("/account").status_code == 303


def test_no_password_gets_somebody_of_the_provider_in(sso: Door, provider: FakeProvider) -> None:
    """CVE-2022-39360: a password set here would go round the provider."""
    sign_on(sso)
    name = user(sso, provider).name
    with pytest.raises(Exception, match="identity provider"):
        access.set_password(sso.backends, name, PASSWORD)
    assert sso.sign_in(name, PASSWORD).status_code == 401


# --- sessions -----------------------------------------------------------------------------------------------------


def test_a_session_somebody_brought_along_is_not_taken_on(sso: Door) -> None:
    client, attacker = sso.client(), sso.client()
    for each in (client, attacker):
        each.set_cookie("spendscope", "chosen-by-the-attacker")
    assert sign_on(sso, client).status_code == 303
    assert client.get("/account").status_code == 200
    assert attacker.get("/account").status_code == 303


def test_the_session_before_ends(sso: Door) -> None:
    client = sso.client()
    sign_on(sso, client)
    before = client.get_cookie("spendscope")
    sign_on(sso, client)
    copy = sso.client()
    copy.set_cookie("spendscope", before.value if before else "")
    assert copy.get("/account").status_code == 303


def test_cookies_of_single_sign_on_are_bound(provider: FakeProvider, tmp_path: Path) -> None:
    door = with_sign_on(tmp_path, provider, public_url="https://costs.example.org")
    client = door.client()
    answer = client.get("/login/sso", base_url="https://costs.example.org")
    seed = cookie_of(answer, "__Host-spendscope-signon")
    back = led_back(answer.headers["Location"])
    assert back.startswith("https://costs.example.org/login/callback?")
    answer = client.get(back.removeprefix("https://costs.example.org"), base_url="https://costs.example.org")
    assert answer.status_code == 303
    for found in (seed, cookie_of(answer, "__Host-spendscope")):
        for word in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
            assert word in found
        assert "Domain" not in found
    assert "Max-Age=0" in cookie_of(answer, "__Host-spendscope-signon")
    door.backends.metadata.close()


def test_signing_out_goes_on_to_the_provider(sso: Door, provider: FakeProvider) -> None:
    client = sso.client()
    sign_on(sso, client)
    held = client.get_cookie("spendscope")
    answer = client.post("/logout", data={"form_token": form_token(client, "/account")})
    page = answer.get_data(as_text=True).replace("&amp;", "&")
    assert f'content="0; url={provider.issuer}/logout?client_id={CLIENT}&post_logout_redirect_uri=' in page
    assert quote(f"{HOME}/login", safe="") in page
    assert "id_token_hint=" in page
    copy = sso.client()
    copy.set_cookie("spendscope", held.value if held else "")
    assert copy.get("/account").status_code == 303


def test_signing_out_works_while_the_provider_is_down(sso: Door, provider: FakeProvider) -> None:
    client = sso.client()
    sign_on(sso, client)
    token = form_token(client, "/account")
    provider.answers[CONFIGURATION] = (500, {}, b"")
    later(sso, oidc.DISCOVERY_KEPT)
    answer = client.post("/logout", data={"form_token": token})
    assert answer.status_code == 200
    assert "goes on" in answer.get_data(as_text=True)
    assert client.get("/account").status_code == 303


def test_the_id_token_is_kept_encrypted_and_nothing_else_is(sso: Door, provider: FakeProvider) -> None:
    client = sso.client()
    there = begin(sso, client)
    seed = client.get_cookie("spendscope-signon")
    come_back(client, led_back(there))
    verifier = provider.token_requests[-1]["code_verifier"]
    query = dict(parse_qsl(urlsplit(there).query))
    hint = sso.backends.metadata.sessions(user(sso, provider).id)[0].hint
    files = b"".join(p.read_bytes() for p in Path(sso.backends.metadata._path.parent).glob("metadata.sqlite*"))  # type: ignore[attr-defined]
    assert hint.encode() in files
    assert seed
    token = signon._opened(sso.gate.key, hint)
    assert token.startswith("eyJ")
    for secret in (verifier, query["state"], query["nonce"], seed.value, SECRET, "canary-access-token", token[:40]):
        assert secret.encode() not in files


# --- what else there is -------------------------------------------------------------------------------------------


def test_without_single_sign_on_there_is_none(tmp_path: Path) -> None:
    door = closed(tmp_path)
    access.add_user(door.backends, "ada", "admin", None, PASSWORD)
    for path in ("/login/sso", "/login/callback?code=x&state=y"):
        assert door.client().get(path).status_code == 404
    assert "/login/sso" not in door.client().get("/login").get_data(as_text=True)


def test_with_single_sign_on_this_machine_is_closed_and_nobody_claims(
    sso: Door, provider: FakeProvider, tmp_path: Path
) -> None:
    door = with_sign_on(tmp_path, provider)
    assert not door.backends.metadata.has_users()
    assert door.client().get("/").status_code == 303
    assert door.client().get("/api/v1/jobs").status_code == 401
    assert "/claim" not in door.client().get("/login").get_data(as_text=True)
    door.backends.metadata.close()


def test_passwords_can_be_switched_off(provider: FakeProvider, tmp_path: Path) -> None:
    door = with_sign_on(tmp_path, provider)
    access.add_user(door.backends, "ada", "admin", None, PASSWORD)
    held = door.client_of("ada")
    assert held.get("/account").status_code == 200
    settings = door.backends.settings.model_copy(update={"local_login": False})
    backends = replace(door.backends, settings=settings)
    door = Door(backends, create_app(backends), door.clock)
    client = door.client()
    page = client.get("/login").get_data(as_text=True)
    assert "Example Login" in page
    assert 'type="password"' not in page
    # The form of before, and one that somebody wrote.
    secret = held.get_cookie("spendscope")
    assert secret
    client.set_cookie("spendscope", secret.value)
    assert client.get("/account").status_code == 303
    seed = client.get_cookie("spendscope-form")
    assert seed
    values = {"form_token": _form_token_of(door, seed.value), "name": "ada", "password": PASSWORD}
    answer = client.post("/login", data=values)
    assert answer.status_code == 403
    assert not [c for c in answer.headers.getlist("Set-Cookie") if c.startswith("spendscope=")]
    assert client.get("/claim").status_code == 404
    assert sign_on(door).status_code == 303
    door.backends.metadata.close()


def _form_token_of(door: Door, seed: str) -> str:
    return hmac.new(door.gate.key, f"form\0{seed}".encode(), sha256).hexdigest()


def test_all_of_it_is_on_record_in_one_chain(sso: Door) -> None:
    sign_on(sso)
    entries = sso.backends.metadata.audit(limit=100_000)
    assert len(entries) >= 2
    assert broken_at(entries) is None
