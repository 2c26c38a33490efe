"""What Cost Explorer says of some days: the accounts there are, their charges by the cheaper loop, the totals.

Only the standard library and boto3: the collector's Lambda carries this module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

from app.core import costexplorer as ce
from app.core.charges import COSTS
from app.core.collection import FEW
from app.core.periods import DateRange
from workers.asking import FAILURES, Meter, Payer, Questions, World, told

log = logging.getLogger(__name__)

NOT_LISTED: Final = "neither Cost Explorer nor Organizations speaks of it (any more)"


@dataclass(frozen=True)
class Account:
    name: str = ""
    state: str = ""
    payer: str = ""

    def said(self) -> dict[str, str]:
        """What is known of it."""
        return {name: value for name, value in vars(self).items() if value}


def organization_accounts(client: Any) -> dict[str, Account]:
    """Every account of the organisation; pages may be empty and still not the last. Raises one of FAILURES."""
    found: dict[str, Account] = {}
    token: str | None = None
    while True:
        page = client.list_accounts(**({"NextToken": token} if token else {}))
        for each in page.get("Accounts") or ():
            # `Status` was retired in favour of `State`; older SDKs know only the first.
            state = str(each.get("State") or each.get("Status") or "")
            found[ce.account_of(each["Id"])] = Account(ce.clean(each.get("Name") or ""), state)
        token = page.get("NextToken")
        if not token:
            return found


# --- what one payer's Cost Explorer says --------------------------------------------------------------------------


@dataclass
class Gathered:
    """Charges by day; per account the days its replies spoke of, or why it failed; and the totals to compare with."""

    rows: dict[date, dict[ce.Key, ce.Row]] = field(default_factory=dict)
    mentioned: dict[str, frozenset[date]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    reference: ce.Reference = field(default_factory=dict)
    reference_days: frozenset[date] = frozenset()
    loop: str = ""

    def take(self, account: str, rows: Mapping[date, dict[ce.Key, ce.Row]], mentioned: frozenset[date]) -> None:
        """These rows are all there is of the account."""
        for day in self.rows.keys() | rows.keys():
            others = {key: row for key, row in self.rows.get(day, {}).items() if key[0] != account}
            self.rows[day] = others | rows.get(day, {})
        self.mentioned[account] = mentioned
        self.failed.pop(account, None)


class Gathering:
    """One payer asked about some days: which accounts, then the charges by the cheaper loop, then the totals."""

    def __init__(self, payer: Payer, days: DateRange, only: frozenset[str] | None, world: World, meter: Meter) -> None:
        self._payer, self._days, self._only = payer, days, only
        self._ask = Questions(payer, world, meter)
        self._found = Gathered()

    def gather(self) -> Gathered:
        """Raises one of FAILURES when the payer cannot be asked at all."""
        self._payer.client("ce")
        self._list_accounts()
        wanted = sorted(self._found.accounts)
        regions = self._regions(len(wanted))
        if regions is not None and len(regions) < len(wanted):
            self._by_region(wanted, regions)
        else:
            self._by_account(wanted)
        if self._found.mentioned:
            self._compare()
        self._name_accounts({})
        return self._found

    # which accounts

    def _list_accounts(self) -> None:
        """Those of the organisation and those Cost Explorer has charges of: closed accounts still have history."""
        errors: list[Exception] = []
        try:
            self._found.accounts |= organization_accounts(self._payer.client("organizations"))
        except FAILURES as error:
            errors.append(error)
        names: dict[str, str] = {}
        try:
            values, names = self._ask.values(ce.ACCOUNT, self._days)
            for value in values:
                self._found.accounts.setdefault(ce.account_of(value), Account())
        except FAILURES as error:
            errors.append(error)
        if not self._found.accounts:
            self._found.accounts[self._own_account()] = Account()
        elif errors:
            self._found.notices += [f"accounts may be missing: {told(error)}" for error in errors]
        self._name_accounts(names)
        if self._only is not None:
            self._limit(self._only, listed=len(errors) < 2)

    def _limit(self, only: frozenset[str], *, listed: bool) -> None:
        """Ask about these only; where there are lists, not about one that is on none: an empty reply would say zero."""
        known = self._found.accounts
        self._found.accounts = {name: known.get(name, Account()) for name in only if name in known or not listed}
        self._found.failed |= dict.fromkeys(only - set(self._found.accounts), NOT_LISTED)

    def _own_account(self) -> str:
        return ce.account_of(self._payer.client("sts").get_caller_identity()["Account"])

    def _name_accounts(self, names: Mapping[str, str]) -> None:
        for account, known in self._found.accounts.items():
            name = known.name or names.get(account, "")
            self._found.accounts[account] = replace(known, name=name, payer=self._payer.role)

    # the charges

    def _regions(self, accounts: int) -> list[str] | None:
        """Regions with charges, where asking for them may save requests; None when it may not, or they are not known."""
        if accounts <= FEW or self._only is not None:
            return None
        try:
            regions, _ = self._ask.values(ce.REGION, self._days)
        except FAILURES as error:
            self._found.notices.append(f"asked account by account: {told(error)}")
            return None
        return regions if regions and all(regions) else None

    def _by_account(self, accounts: Sequence[str]) -> None:
        self._found.loop = self._found.loop or "account"
        for account in accounts:
            try:
                reply = self._ask.reply(self._days, (ce.SERVICE, ce.REGION), LINKED_ACCOUNT=[account])
                rows = _keyed(reply, account=account)
                self._found.take(account, rows, reply.mentioned)
            except FAILURES as error:
                log.warning("Account %s: %s", account, told(error))
                self._found.failed[account] = told(error)

    def _by_region(self, accounts: Sequence[str], regions: Sequence[str]) -> None:
        """All regions or nothing: what one region lacks, every account lacks."""
        self._found.loop = "region"
        gathered: dict[date, dict[ce.Key, ce.Row]] = {}
        mentioned: frozenset[date] = frozenset()
        names: dict[str, str] = {}
        try:
            for region in regions:
                reply = self._ask.reply(self._days, (ce.ACCOUNT, ce.SERVICE), REGION=[region])
                rows = _keyed(reply, region=region)
                for day, charges in rows.items():
                    _add(gathered.setdefault(day, {}), charges)
                mentioned, names = mentioned | reply.mentioned, names | reply.names
        except FAILURES as error:
            log.warning("Region %s: %s", region, told(error))
            self._found.failed |= dict.fromkeys(accounts, told(error))
            return
        self._found.rows = gathered
        present = {key[0] for charges in gathered.values() for key in charges}
        self._found.mentioned = dict.fromkeys(present.union(accounts), mentioned)
        self._found.accounts = {account: Account() for account in present} | self._found.accounts
        self._name_accounts(names)

    # the totals

    def _compare(self) -> None:
        """Cost Explorer's own totals of the same days; accounts they show to be incomplete are asked once more."""
        only = {} if self._only is None else {ce.ACCOUNT: sorted(self._only)}
        try:
            reply = self._ask.reply(self._days, (ce.ACCOUNT, ce.RECORD_TYPE), COSTS, **only)
            self._found.reference, self._found.reference_days = ce.reference_of(reply), reply.mentioned
        except FAILURES as error:
            self._found.notices.append(f"no totals to compare with: {told(error)}")
            return
        self._name_accounts(reply.names)
        self._by_account(sorted(self._incomplete()))

    def _incomplete(self) -> set[str]:
        unlisted = {account for _, account, _ in self._found.reference} - set(self._found.accounts)
        self._found.accounts |= {account: Account(payer=self._payer.role) for account in unlisted}
        if self._found.loop != "region":
            return unlisted
        short = ce.differing(self._found.reference_days, self._found.reference, self._found.rows)
        if short:
            self._found.notices.append(f"{len(short)} accounts were more than their regions and were asked one by one")
        return unlisted | (short & set(self._found.mentioned))


def _keyed(reply: ce.Reply, *, account: str = "", region: str = "") -> dict[date, dict[ce.Key, ce.Row]]:
    """The reply's charges by account, service and region; names that are the same when cleaned are one."""
    found: dict[date, dict[ce.Key, ce.Row]] = {}
    for day, rows in reply.rows.items():
        charges = found.setdefault(day, {})
        for (first, second), row in rows.items():
            key = ce.key_of(account, first, second) if account else ce.key_of(first, second, region)
            _add(charges, {key: row})
    return found


def _add(charges: dict[ce.Key, ce.Row], more: Mapping[ce.Key, ce.Row]) -> None:
    for key, row in more.items():
        charges[key] = charges[key].plus(row) if key in charges else row


def merged(parts: Sequence[Gathered]) -> Gathered:
    """Several payers as one: an account counts where it was collected first, and has failed where nobody did."""
    whole = Gathered(loop="+".join(sorted({part.loop for part in parts} - {""})))
    for part in parts:
        mine = {name for name in part.mentioned if name not in part.failed} - set(whole.mentioned)
        for day, charges in part.rows.items():
            whole.rows.setdefault(day, {}).update({key: row for key, row in charges.items() if key[0] in mine})
        whole.mentioned |= {name: part.mentioned[name] for name in mine}
        whole.accounts = part.accounts | whole.accounts
        taken = {account for _, account, _ in whole.reference}
        whole.reference |= {key: row for key, row in part.reference.items() if key[1] not in taken}
        whole.reference_days |= part.reference_days
        whole.notices += part.notices
    failed = {name: why for part in reversed(parts) for name, why in part.failed.items()}
    whole.failed = {name: why for name, why in failed.items() if name not in whole.mentioned}
    return whole
