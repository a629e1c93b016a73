"""People as an annotator: comparisons go into a campaign, and what its people said comes out.

A run that names a campaign waits here until its labels are in. Nothing is lost while it does: people answer on the
page, in a process of its own, and a run that was stopped goes on where it was.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.address import identity_at, name_of, new_campaign, open_journal
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.events import Settings, Voted
from pasture.annotate.campaign.export import majority, preference
from pasture.annotate.campaign.journal import CampaignExistsError, NoCampaignError
from pasture.annotate.campaign.making import named_annotators, opening
from pasture.annotate.campaign.state import Campaign
from pasture.core.errors import Missing, WaitingError
from pasture.core.files import PlaceName
from pasture.core.ports import Progress, silent
from pasture.core.records import Comparison, Preference


class PeopleConfig(BaseModel):
    """People as a recipe names them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: PlaceName = Field(min_length=1)
    """A .campaign file, or postgresql://USER@HOST/DATABASE#NAME; made where there is none."""
    annotators: str = "1"
    """For a campaign that is made here: how many, or their names with commas between."""
    overlap: int = Field(default=1, ge=1)
    """For a campaign that is made here: labels for each pair."""
    votes: Literal["all", "majority"] = "all"
    """Every label as a preference, or one for each pair: the side that more said than the other, ties aside; a tie
    where as many said each. A skip is no label."""
    wait_seconds: float | None = Field(default=0.0, ge=0.0)
    """How long a run waits for what is missing; None for as long as it takes, 0 to stop and say what is missing."""


class People:
    """The people of a campaign."""

    def __init__(
        self,
        config: PeopleConfig,
        *,
        folder: str | Path = Path(),
        progress: Progress = silent,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """A campaign's path may be relative to `folder`."""
        self._config, self._progress, self._sleep = config, progress, sleep
        database = "://" in config.campaign
        self._address = config.campaign if database else str(Path(folder) / config.campaign)

    @property
    def identity(self) -> Mapping[str, object]:
        """What the verdicts depend on: the campaign, how votes become labels, and who was dropped.

        Labels that were taken stand, so that they stay what they are. A campaign keeps its identity wherever it is
        moved to, and one that a run is still to make has the identity that it will have.
        """
        identity, dropped = self._campaign()
        return {
            "annotator": "people",
            "campaign": name_of(self._address),
            "campaign_identity": identity,
            "overlap": self._config.overlap,
            "votes": self._config.votes,
            "dropped": dropped,
        }

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """What people said of each comparison, in order; with votes 'all' as many preferences as there are labels.

        The campaign is made of `comparisons` where there is none. Else they are added to it, if a run made it or has
        taken labels from it: so its people see what all steps ask. Once they are labelled their labels stand.

        Raises:
            WaitingError: if labels are missing when the waiting is over; says how many, and how to go on.
            RefusedError: if the campaign is of other pairs, which no waiting would bring.
        """
        if not self._exists():
            self._make(comparisons)
        with Desk(open_journal(self._address)) as desk:
            desk.act(lambda campaign: acts.ask(campaign, comparisons), lambda _: None).result()
            self._wait(desk, comparisons)
            return desk.act(
                lambda campaign: acts.settle(campaign, comparisons),
                lambda campaign: self._said(campaign, comparisons),
            ).result()

    def _exists(self) -> bool:
        try:
            open_journal(self._address).close()
        except NoCampaignError:
            return False
        return True

    def _make(self, comparisons: Sequence[Comparison]) -> None:
        opened, added = opening(
            name_of(self._address),
            list({each.id: each for each in comparisons}.values()),
            named_annotators(self._config.annotators),
            Settings(overlap=self._config.overlap),
        )
        with contextlib.suppress(CampaignExistsError):  # a step beside this one was quicker; its campaign serves both
            own = {"by_run": True, "identity": identity_at(self._address)}
            new_campaign(self._address, [opened.model_copy(update=own), *added])

    def _wait(self, desk: Desk, comparisons: Sequence[Comparison]) -> None:
        waited = 0.0
        while True:
            missing, wanted = desk.look(lambda campaign: _missing(campaign, comparisons)).result()
            self._progress(wanted - missing, wanted)
            closed = desk.look(lambda campaign: campaign.closed).result()
            if missing == 0 or closed:
                return
            if self._config.wait_seconds is not None and waited >= self._config.wait_seconds:
                raise WaitingError(Missing(self._address, missing, wanted, self._advice(desk)))
            self._sleep(POLL_SECONDS)
            waited += POLL_SECONDS

    def _advice(self, desk: Desk) -> str:
        working = desk.look(
            lambda campaign: [
                f"{name} {len(campaign.queue(name))}" for name in campaign.active if campaign.current(name) is not None
            ]
        ).result()
        left = f"Pairs left by annotator: {', '.join(working[:20])}. " if working else ""
        unassigned = desk.look(Campaign.unassigned_labels).result()
        if unassigned:
            left += (
                f"Nobody is left to give {unassigned} labels: all who take part have labelled or skipped those pairs. "
                f"One more joins with 'pasture people add {self._address} NAME'. "
            )
        return (
            f"{left}Open the page with 'pasture people serve {self._address}', and run the same command again when "
            f"people are done; or end the campaign as it is with 'pasture people close {self._address}'."
        )

    def _said(self, campaign: Campaign, comparisons: Sequence[Comparison]) -> list[Preference]:
        answers, wage = campaign.answers(), campaign.settings.wage_usd_per_hour
        said = []
        for comparison in comparisons:
            votes = answers.get(comparison.id, ())
            labels = [vote for vote in votes if vote.said != "skip"]
            if not labels:
                said.append(_unlabelled(comparison, votes))
            elif self._config.votes == "all":
                said += [preference(vote, wage) for vote in labels]
            else:
                said.append(_most(comparison, votes, wage))
        return said

    def _campaign(self) -> tuple[str, list[str]]:
        """Its identity, and who was dropped from it."""
        if not self._exists():
            return identity_at(self._address), []
        with Desk(open_journal(self._address)) as desk:
            return desk.look(
                lambda campaign: (
                    campaign.opened.identity,
                    sorted(name for name, one in campaign.annotators.items() if one.status == "dropped"),
                )
            ).result()


POLL_SECONDS = 2.0
"""Between two looks at a campaign that is waited for."""


def _missing(campaign: Campaign, comparisons: Sequence[Comparison]) -> tuple[int, int]:
    labels, overlap = campaign.labels(), campaign.settings.overlap
    return sum(max(0, overlap - len(labels[each.id])) for each in comparisons), overlap * len(comparisons)


def _unlabelled(comparison: Comparison, skips: Sequence[Voted]) -> Preference:
    why = "nobody labelled this pair before the campaign was closed"
    if skips:
        why += f"; skipped: {'; '.join(vote.reason for vote in skips)}"
    return Preference(comparison_id=comparison.id, annotator="people", preferred="unjudged", error=why)


def _most(comparison: Comparison, votes: Sequence[Voted], wage: float | None) -> Preference:
    """The majority of the labels; skips among `votes` took time, and are paid for."""
    said = [preference(vote, wage) for vote in votes]
    judged = [each for each in said if each.preferred != "unjudged"]
    costs = [each.cost_usd for each in said if each.cost_usd is not None]
    seconds = [each.seconds for each in said if each.seconds is not None]
    value = {"first": 1.0, "tie": 0.5, "second": 0.0}
    return Preference(
        comparison_id=comparison.id,
        annotator="people",
        preferred=majority(votes) or "tie",
        probability_first=sum(value[each.preferred] for each in judged) / len(judged),
        cost_usd=sum(costs) if len(costs) == len(said) else None,
        seconds=sum(seconds) if seconds else None,
        evidence={"votes": {each.annotator: each.preferred for each in judged}},
    )
