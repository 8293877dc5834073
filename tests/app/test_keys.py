"""API keys: how they are written, what is kept of them, and what they open."""

from __future__ import annotations

import binascii
import stat
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from app.database import Database
from app.database.models import ApiKeyModel
from app.keys.errors import InvalidKeyRequest, SecretUnavailable, UnknownKey
from app.keys.form import ALPHABET, checksum, is_key, new_key, prefix_of
from app.keys.secret import read_secret
from app.keys.store import USED_EVERY, KeyStore
from app.settings import Settings
from tests.app.queue.helpers import Clock

SECRET = b"s" * 32


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(database: Database, clock: Clock) -> KeyStore:
    return KeyStore(database, secret=SECRET, clock=clock)


class TestForm:
    def test_a_key_has_a_fixed_beginning_and_48_characters(self) -> None:
        key = new_key()
        assert key.startswith("ctxp_")
        assert len(key) == 5 + 37 + 6
        assert is_key(key)
        assert len({new_key() for _ in range(100)}) == 100

    def test_the_checksum_is_the_crc_of_what_stands_before_it(self) -> None:
        """Written down, so that a scanner of secrets that knows the rule goes on to recognise keys."""
        body = "ctxp_" + "a" * 37
        assert checksum(body) == _base62_crc(body)
        assert is_key(body + _base62_crc(body))

    @given(place=st.integers(0, 47), letter=st.sampled_from(ALPHABET))
    def test_a_key_with_one_wrong_character_is_none(self, place: int, letter: str) -> None:
        key = new_key()
        other = key[:place] + letter + key[place + 1 :]
        assert is_key(other) == (other == key)

    @pytest.mark.parametrize(
        "text", ["", "ctxp_", "ctxp_" + "a" * 43, "CTXP_" + "a" * 43, "ctxp_\n" + "a" * 42, "é" * 48]
    )
    def test_other_text_is_no_key(self, text: str) -> None:
        assert not is_key(text)


class TestKeeping:
    async def test_only_a_hash_under_the_secret_is_kept(self, keys: KeyStore, database: Database) -> None:
        made = await keys.create("laptop", ["plan", "work"])
        async with database.read_session() as session:
            row = (await session.execute(select(ApiKeyModel))).scalar_one()
        kept = " ".join(str(getattr(row, column.name)) for column in ApiKeyModel.__table__.columns)
        assert made.key not in kept
        assert made.key not in repr(made)
        assert row.prefix == prefix_of(made.key)
        other = KeyStore(database, secret=b"t" * 32, clock=Clock())
        assert await other.find(made.key) is None
        assert (await keys.find(made.key)) == made.view

    async def test_a_key_that_is_none_finds_nothing(self, keys: KeyStore) -> None:
        made = await keys.create("laptop", ["plan"])
        assert await keys.find(new_key()) is None
        assert await keys.find(made.key[:-1]) is None
        assert await keys.find("") is None

    async def test_scopes_are_listed_once_in_one_order(self, keys: KeyStore) -> None:
        made = await keys.create("laptop", ["work", "plan", "work"])
        assert made.view.scopes == ("plan", "work")

    @pytest.mark.parametrize(
        ("name", "scopes", "life", "key"),
        [
            ("", ["plan"], None, "name"),
            ("a\nb", ["plan"], None, "name"),
            ("a", [], None, "scopes"),
            ("a", ["root"], None, "scopes"),
            ("a", ["plan"], timedelta(0), "expires"),
            ("a", ["plan"], timedelta(days=99_999), "expires"),
        ],
    )
    async def test_a_key_that_cannot_be_made_is_refused(
        self, keys: KeyStore, name: str, scopes: list[str], life: timedelta | None, key: str
    ) -> None:
        with pytest.raises(InvalidKeyRequest) as refused:
            await keys.create(name, scopes, expires_in=life)
        assert refused.value.key == key
        assert await keys.list() == ()

    async def test_a_key_ends_at_its_time(self, keys: KeyStore, clock: Clock) -> None:
        view = (await keys.create("a", ["plan"], expires_in=timedelta(hours=1))).view
        assert view.is_valid(clock())
        assert await keys.count_valid() == 1
        clock.move(3600)
        assert not view.is_valid(clock())
        assert await keys.count_valid() == 0

    async def test_a_revoked_key_is_never_valid_again(self, keys: KeyStore, clock: Clock) -> None:
        made = await keys.create("a", ["plan"])
        first = await keys.revoke(made.view.id)
        clock.move(60)
        assert await keys.revoke(made.view.prefix) == first
        found = await keys.find(made.key)
        assert found is not None
        assert not found.is_valid(clock())

    async def test_a_rotated_key_has_the_same_rights_and_the_old_one_ends(self, keys: KeyStore, clock: Clock) -> None:
        old = await keys.create("a", ["plan", "work"], expires_in=timedelta(days=30))
        clock.move(86_400)
        new = await keys.rotate(old.view.id[:6])
        assert (new.view.name, new.view.scopes) == ("a", ("plan", "work"))
        assert new.view.expires_at == clock() + timedelta(days=30)
        found = await keys.find(old.key)
        assert found is not None
        assert not found.is_valid(clock())
        with pytest.raises(InvalidKeyRequest):
            await keys.rotate(old.view.id)

    async def test_a_grace_lets_the_old_key_go_on_and_never_for_longer_than_it_had(
        self, keys: KeyStore, clock: Clock
    ) -> None:
        old = await keys.create("a", ["plan"], expires_in=timedelta(hours=2))
        await keys.rotate(old.view.id, grace=timedelta(hours=1))
        found = await keys.find(old.key)
        assert found is not None
        assert found.expires_at == clock() + timedelta(hours=1)
        other = await keys.create("b", ["plan"], expires_in=timedelta(hours=1))
        await keys.rotate(other.view.id, grace=timedelta(days=9))
        found = await keys.find(other.key)
        assert found is not None
        assert found.expires_at == other.view.expires_at
        with pytest.raises(InvalidKeyRequest):
            await keys.rotate(found.id, grace=timedelta(seconds=-1))

    async def test_an_id_that_is_none_is_named(self, keys: KeyStore) -> None:
        for id in ("", "ffff"):
            with pytest.raises(UnknownKey):
                await keys.revoke(id)

    async def test_use_is_noted_to_the_minute(self, keys: KeyStore, clock: Clock) -> None:
        view = (await keys.create("a", ["plan"])).view
        await keys.used(view)
        (first,) = await keys.list()
        assert first.last_used_at == clock()
        clock.move(1)
        await keys.used(first)
        assert (await keys.list())[0].last_used_at == first.last_used_at
        clock.move(USED_EVERY.total_seconds())
        await keys.used(first)
        assert (await keys.list())[0].last_used_at == clock()


class TestSecret:
    def settings(self, folder: Path, **changes: object) -> Settings:
        return Settings.model_validate({"database_url": f"sqlite:///{folder}/x.db", **changes})

    def test_it_is_made_once_beside_the_database_and_nobody_else_may_read_it(self, tmp_path: Path) -> None:
        secret = read_secret(self.settings(tmp_path))
        file = tmp_path / "x.db.secret"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert read_secret(self.settings(tmp_path)) == secret
        assert len(secret) == 64
        assert [one.name for one in tmp_path.iterdir()] == [file.name]

    def test_processes_that_begin_at_once_have_the_same(self, tmp_path: Path) -> None:
        context = get_context("spawn")
        with context.Pool(4) as pool:
            found = pool.map(_secret_of, [str(tmp_path)] * 8)
        assert len(set(found)) == 1

    def test_a_file_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        read_secret(self.settings(tmp_path))
        (tmp_path / "x.db.secret").chmod(0o640)
        with pytest.raises(SecretUnavailable, match="others may read"):
            read_secret(self.settings(tmp_path))

    def test_a_file_that_is_too_short_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "short"
        file.write_text("abc")
        file.chmod(0o600)
        with pytest.raises(SecretUnavailable, match="too short"):
            read_secret(self.settings(tmp_path, keys_secret_file=file))

    def test_a_place_where_no_file_can_be_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SecretUnavailable, match="missing"):
            read_secret(self.settings(tmp_path, keys_secret_file=tmp_path / "missing" / "x"))

    def test_replicas_are_told_to_share_one(self) -> None:
        with pytest.raises(SecretUnavailable, match="replicas"):
            read_secret(Settings(database_url="postgresql://x/y"))

    def test_the_settings_secret_is_used_and_never_shown(self, tmp_path: Path) -> None:
        settings = self.settings(tmp_path, keys_secret="k" * 40)
        assert read_secret(settings) == b"k" * 40
        assert "kkkk" not in repr(settings)
        assert list(tmp_path.iterdir()) == []


def _secret_of(folder: str) -> bytes:
    return read_secret(Settings(database_url=f"sqlite:///{folder}/x.db"))


def _base62_crc(text: str) -> str:
    number, digits = binascii.crc32(text.encode()), ""
    while number:
        digits = ALPHABET[number % 62] + digits
        number //= 62
    return digits.rjust(6, "0")
