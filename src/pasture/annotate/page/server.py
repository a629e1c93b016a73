"""The application: an annotator's round, form by form, and the owner's page with what the owner may change.

A GET writes nothing. Every POST carries the session's cookie and the form token that belongs to it, and is answered,
once what it says is on disk, by a redirection to the next page.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.events import OWNER, REASON_CHARACTERS, Event, Said
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.campaign.tokens import digest, form_token, new_token, session_of
from pasture.annotate.page.buckets import Buckets
from pasture.annotate.page.gate import Gate, Policy
from pasture.annotate.page.owner import Owner, Standing
from pasture.annotate.page.pages import STATIC, Pages
from pasture.annotate.page.views import Round, Shown, round_of, seconds_since, shown
from pasture.core.errors import DataError, StoreError

T = TypeVar("T")
COOKIE_SECONDS = 30 * 24 * 3600
_SAID: Mapping[str, Said] = {"first": "first", "second": "second", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
_MOST_FIELDS = 12
_OPEN_YOUR_LINK = (
    "Open the link that you were given: it is good for one annotator, and for you alone. If it brings you here, or is "
    "lost, ask for a new one; your answers are kept."
)
_BAD_LINK = "This link is not valid, or not any more. Ask whoever sent it for a new one; your answers are kept."
_LONGEST_SECRET = 100


class BadFormError(Exception):
    """A form that none of our pages can have sent."""


class NotOwnerError(Exception):
    """An annotator at what is the owner's alone; told no more than that there is no such page."""


class StrangerError(Exception):
    """A session that is nobody's, or nobody's any more."""


@dataclass(frozen=True)
class _Visitor:
    """Who asks, by a session that is yet to be looked up, together with what is asked: one way to the desk, not two."""

    session: str
    form: Mapping[str, str]
    """Fields of a POST; empty for a GET."""

    def known(self, campaign: Campaign) -> str:
        """The name that the session belongs to."""
        who = campaign.who(session=digest(self.session))
        if who is None:
            raise StrangerError
        return who

    def annotator(self, campaign: Campaign) -> str:
        """The same, but for the owner."""
        who = self.known(campaign)
        if who == OWNER:
            raise acts.RefusedError("The owner does not label. Make an annotator for yourself.")
        return who

    def owner(self, campaign: Campaign) -> None:
        """See that it is the owner."""
        if self.known(campaign) != OWNER:
            raise NotOwnerError


Handler = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Request, _Visitor], Awaitable[Response]]


def application(desk: Desk, policy: Policy, standing: Standing) -> ASGIApp:
    """The pages of the campaign at `desk`, behind their gate; `standing` reckons the owner's figures."""
    return Gate(_Site(desk, policy, standing).app(), policy)


class _Site:
    def __init__(self, desk: Desk, policy: Policy, standing: Standing) -> None:
        self._desk, self._policy = desk, policy
        opened = desk.look(lambda campaign: campaign.opened).result()
        prefix = "__Host-" if policy.is_secure else ""
        # Cookies do not tell ports apart: two campaigns on one machine need names of their own.
        self._cookie = f"{prefix}pasture-{opened.identity[:8]}"
        self._pages = Pages()
        self._owner = Owner(desk, standing)
        self._guesses = Buckets(0.2, policy.guesses)
        self._votes = Buckets(policy.votes_per_second, 3 * policy.votes_per_second)

    def app(self) -> Starlette:
        """All routes; there are no others."""
        routes = [
            Route("/", self._page(self._front)),
            Route("/pair", self._page(self._pair)),
            Route("/enter/{token}", self._enter),
            Route("/owner", self._page(self._owner_page)),
            Route("/owner/drop", self._form(self._owner_drops), methods=["POST"]),
            Route("/owner/invite", self._form(self._owner_invites), methods=["POST"]),
            Route("/owner/add", self._form(self._owner_adds), methods=["POST"]),
            Route("/switch", self._form(self._switch), methods=["POST"]),
            Route("/vote", self._form(self._vote), methods=["POST"]),
            Route("/undo", self._form(self._undo), methods=["POST"]),
            Route("/more", self._form(self._act(acts.take_over, "/pair")), methods=["POST"]),
            Route("/leave", self._form(self._act(acts.leave, "/")), methods=["POST"]),
            Route("/return", self._form(self._act(acts.come_back, "/")), methods=["POST"]),
            Route("/out", self._form(self._out), methods=["POST"]),
            Route("/favicon.ico", _nothing),
            *(Route(f"/static/{name}", _static(name)) for name in STATIC),
        ]
        handlers = {404: self._not_found, 405: self._not_found, StoreError: self._store_failed}
        return Starlette(routes=routes, exception_handlers=handlers)

    # Who it is.

    def _page(self, answer: Answer) -> Handler:
        async def handle(request: Request) -> Response:
            visitor = self._visitor(request, {})
            try:
                return await self._stranger(request) if visitor is None else await answer(request, visitor)
            except StrangerError:
                return await self._stranger(request)

        return handle

    def _form(self, answer: Answer) -> Handler:
        async def handle(request: Request) -> Response:
            try:
                form = await _fields(request)
                visitor = self._visitor(request, form)
                if visitor is None:
                    return await self._stranger(request)
                # Before anything that depends on the form: who cannot read our pages learns nothing of the campaign.
                if not _same(form.get("form", ""), form_token(visitor.session)):
                    await self._look(visitor.known)
                    return self._message(403, "This form was not sent from one of our own pages. Go on from there.")
                if not self._votes.take(digest(visitor.session)):
                    return self._message(429, "That was too fast. Wait a moment and go on.", {"retry-after": "1"})
                return await answer(request, visitor)
            except StrangerError:
                return await self._stranger(request)
            except acts.RefusedError as error:
                return self._message(409, str(error))
            except BadFormError as error:
                return self._message(400, str(error))
            except NotOwnerError:
                return self._message(404, "There is no such page.")
            except DataError as error:
                return self._message(409, str(error), on="/owner")

        return handle

    def _visitor(self, request: Request, form: Mapping[str, str]) -> _Visitor | None:
        """None for who brings no session, none that could be one, or two: whose they are cannot be told."""
        session = request.cookies.get(self._cookie, "")
        sent = ";".join(request.headers.getlist("cookie")).split(";")
        once = sum(part.partition("=")[0].strip() == self._cookie for part in sent) == 1
        return _Visitor(session, form) if once and session and len(session) <= _LONGEST_SECRET else None

    async def _who(self, visitor: _Visitor | None) -> str | None:
        """The name of a visitor; None for a stranger."""
        if visitor is None:
            return None
        try:
            return await self._look(visitor.known)
        except StrangerError:
            return None

    async def _stranger(self, request: Request) -> Response:
        session, refusal = request.cookies.get(self._cookie), self._message(401, _OPEN_YOUR_LINK, on=None)
        return refusal if session is None else await self._counted(request, session, refusal)

    async def _counted(self, request: Request, secret: str, refusal: Response) -> Response:
        """The refusal, or a request to wait, for who brings what opens nothing.

        What was good once is no guess: the open page of somebody who was dropped would shut a whole class out.
        """
        key = digest(secret)
        if await self._look(lambda campaign: campaign.was_given(key)) or self._guesses.take(_client(request)):
            return refusal
        return self._message(429, "Too many wrong links. Wait a minute.", {"retry-after": "60"}, on=None)

    async def _enter(self, request: Request) -> Response:
        """Take the token out of the address and into a cookie; nothing is written."""
        token = request.path_params["token"]
        who = await self._holder(token)
        if who is None:
            return await self._counted(request, token, self._message(404, _BAD_LINK, on=None))
        visitor = self._visitor(request, {})
        present = await self._who(visitor)
        if visitor is not None and present is not None and present != who:
            # A link in somebody else's mail must not change silently who one is.
            return HTMLResponse(self._pages.switch(present, token, form_token(visitor.session)))
        return self._entered(token, who)

    async def _switch(self, request: Request, visitor: _Visitor) -> Response:
        token = visitor.form.get("token", "")
        who = await self._holder(token)
        if who is None:
            return await self._counted(request, token, self._message(404, _BAD_LINK, on=None))
        return self._entered(token, who)

    async def _holder(self, token: str) -> str | None:
        if len(token) > _LONGEST_SECRET:
            return None
        key = digest(token)
        return await self._look(lambda campaign: campaign.who(token=key))

    def _entered(self, token: str, who: str) -> Response:
        response = RedirectResponse("/owner" if who == OWNER else "/", 303)
        response.set_cookie(
            self._cookie,
            session_of(token),
            max_age=COOKIE_SECONDS,
            secure=self._policy.is_secure,
            httponly=True,
            samesite="lax",  # a link in a mail must arrive with it; forms of other sites do not
        )
        return response

    async def _out(self, request: Request, visitor: _Visitor) -> Response:
        response = RedirectResponse("/", 303)
        response.delete_cookie(self._cookie, secure=self._policy.is_secure, httponly=True, samesite="lax")
        return response

    # What an annotator does.

    async def _front(self, request: Request, visitor: _Visitor) -> Response:
        def at(campaign: Campaign) -> Round | None:
            who = visitor.known(campaign)
            return None if who == OWNER else round_of(campaign, who)

        here = await self._look(at)
        if here is None:
            return RedirectResponse("/owner", 303)
        return HTMLResponse(self._pages.front(here, form_token(visitor.session)))

    async def _pair(self, request: Request, visitor: _Visitor) -> Response:
        def at(campaign: Campaign) -> Shown | Round | None:
            who = visitor.known(campaign)
            return None if who == OWNER else shown(campaign, who)

        seen = await self._look(at)
        if not isinstance(seen, Shown):
            return RedirectResponse("/", 303)
        plain = request.query_params.get("view") == "plain"
        return HTMLResponse(self._pages.pair(seen, form_token(visitor.session), plain=plain))

    async def _vote(self, request: Request, visitor: _Visitor) -> Response:
        form = visitor.form
        said, turn, item = _SAID.get(form.get("said", "")), _number(form, "turn"), form.get("item", "")
        strength = {"": 0, "1": 1, "2": 2, "3": 3}.get(form.get("strength", ""))
        reason = form.get("reason", "").replace("\x00", "")
        if said is None or turn is None or strength is None:
            raise BadFormError("This form is not complete. Go back and choose one of the buttons.")
        if len(reason) > REASON_CHARACTERS:
            raise BadFormError(f"A reason has at most {REASON_CHARACTERS} characters, this one {len(reason)}.")

        def decide(campaign: Campaign) -> Sequence[Event]:
            who = visitor.annotator(campaign)
            seconds = seconds_since(campaign, who, item, turn, form.get("shown", ""))
            return acts.vote(campaign, who, acts.Ballot(item, turn, said, strength or None, reason, seconds))

        await self._happen(decide)
        return RedirectResponse("/pair", 303)

    async def _undo(self, request: Request, visitor: _Visitor) -> Response:
        turn = _number(visitor.form, "turn")
        if turn is None:
            raise BadFormError("This form is not complete.")
        await self._happen(lambda campaign: acts.undo(campaign, visitor.annotator(campaign), turn))
        return RedirectResponse("/pair", 303)

    def _act(self, act: Callable[[Campaign, str], Sequence[Event]], then: str) -> Answer:
        async def answer(_request: Request, visitor: _Visitor) -> Response:
            await self._happen(lambda campaign: act(campaign, visitor.annotator(campaign)))
            return RedirectResponse(then, 303)

        return answer

    # What the owner sees and does.

    async def _owner_page(self, request: Request, visitor: _Visitor) -> Response:
        if await self._look(visitor.known) != OWNER:
            return self._message(404, "There is no such page.")
        seen = await self._owner.seen()
        return HTMLResponse(self._pages.owner(seen, form_token(visitor.session)))

    async def _owner_drops(self, request: Request, visitor: _Visitor) -> Response:
        await self._owner_acts(visitor, acts.drop)
        return RedirectResponse("/owner", 303)

    async def _owner_adds(self, request: Request, visitor: _Visitor) -> Response:
        await self._owner_acts(visitor, acts.join)
        return await self._owner_invites(request, visitor)

    async def _owner_invites(self, request: Request, visitor: _Visitor) -> Response:
        """The new link is on the page that answers, and nowhere else ever."""
        token = new_token()
        name = await self._owner_acts(visitor, lambda campaign, name: acts.invite(campaign, name, token))
        origin = self._policy.origin_of(request.headers["host"])
        return HTMLResponse(self._pages.link(name, f"{origin}/enter/{token}"))

    async def _owner_acts(self, visitor: _Visitor, act: Callable[[Campaign, str], Sequence[Event]]) -> str:
        """The name in the form, after `act` on it."""
        name = visitor.form.get("name", "").strip()

        def decide(campaign: Campaign) -> Sequence[Event]:
            visitor.owner(campaign)
            if name == OWNER:
                raise DataError(f"expected an annotator, got {OWNER!r}.")
            return act(campaign, name)

        await self._happen(decide)
        return name

    # The rest.

    async def _look(self, at: Callable[[Campaign], T]) -> T:
        return await _result(self._desk.look(at))

    async def _happen(self, decide: Callable[[Campaign], Sequence[Event]]) -> None:
        await _result(self._desk.act(decide, lambda _: None))

    def _message(
        self, status: int, text: str, headers: Mapping[str, str] | None = None, *, on: str | None = "/pair"
    ) -> Response:
        return HTMLResponse(self._pages.message(text, on), status, headers)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        return self._message(status, "There is no such page.")

    async def _store_failed(self, request: Request, error: Exception) -> Response:
        # The details name files and hosts: they are for the owner's log.
        return self._message(503, "Your answer could not be stored. Nothing is lost; try again in a moment.")


async def _result(future: "Future[T]") -> T:
    return await asyncio.wrap_future(future)


async def _fields(request: Request) -> Mapping[str, str]:
    """The fields of a form, each at most once."""
    try:
        pairs = parse_qsl(
            (await request.body()).decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=False,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise BadFormError("This form cannot be read.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise BadFormError("This form says one thing twice.")
    return form


def _number(form: Mapping[str, str], name: str) -> int | None:
    value = form.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _static(name: str) -> Handler:
    body, kind = STATIC[name]

    async def handle(_request: Request) -> Response:
        return Response(body, media_type=kind, headers={"cache-control": "max-age=3600"})

    return handle


async def _nothing(_request: Request) -> Response:
    """Browsers ask for an icon; there is none, and that is no error."""
    return Response(status_code=204)
