"""What moves aliases, what decides it, and what is said of versions afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmartifacts.errors import NotAllowed
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata import projects
from llmartifacts.records import rights
from llmartifacts.records.backend import PromotionRequest
from llmartifacts.records.reference import Reference
from llmartifacts.records.rights import Permission
from llmartifacts.server.calls import Call, handler
from llmartifacts.server.routes.look import local
from llmartifacts.wire.bodies import moves as m
from llmartifacts.wire.bodies import versions as v
from llmartifacts.wire.bodies.base import Page


def _asked(call: Call) -> PromotionRequest:
    request = call.sends(m.PromotionRequest).record()
    for number, target in enumerate(request.targets):
        local(call, target.reference, field=f"targets[{number}].reference")
    return request


def _targets(call: Call) -> list[str]:
    return [target.alias for target in call.sends(m.PromotionRequest).targets]


def _rolled_back(call: Call) -> list[str]:
    """The alias that a rollback names; those of a promotion are known once it is undone, and looked at then."""
    target = call.sends(m.Rollback).target
    alias = None if "@" in target else Reference.parse(target, field="target").alias
    return [] if alias is None else [alias]


def _removed(call: Call) -> list[str]:
    alias = call.sends(m.AliasRemoval).reference.alias
    return [] if alias is None else [alias]


@handler("promote", aliases=_targets)
def promote(call: Call) -> Any:
    """Move aliases, where the policy lets them."""
    return call.backend.promote(call.project, _asked(call), actor=call.actor, answers=call.answers)


@handler("promotions")
def promotions(call: Call) -> Page[m.Promotion]:
    """The newest promotions."""
    query = call.asks(v.NumbersQuery)
    found = call.backend.promotions(call.project, limit=query.limit, before=query.before)
    return Page.made([m.Promotion.of(one) for one in found], query.limit, lambda one: one.revision)


@handler("rollback", aliases=_rolled_back)
def rollback(call: Call) -> Any:
    """Undo a promotion."""
    body = call.sends(m.Rollback)
    to = None if body.to is None else local(call, body.to, field="to")
    promotion = "@" in body.target
    target = body.target if promotion else local(call, Reference.parse(body.target, field="target"), field="target")
    return call.backend.rollback(call.project, target, to=to, whole=body.whole, reason=body.reason, actor=call.actor)


@handler("remove_alias", aliases=_removed)
def remove_alias(call: Call) -> Any:
    """Remove an alias."""
    body = call.sends(m.AliasRemoval)
    return call.backend.remove_alias(call.project, local(call, body.reference), reason=body.reason, actor=call.actor)


@handler("gate")
def gate(call: Call) -> Any:
    """What the gates say, and whether the one who asks may move that; nothing moves."""
    found = call.backend.gate(call.project, _asked(call), actor=call.actor)
    with call.backend.parts.metadata.reading() as s:
        protected = rows.protections(s, projects.find_project(s, call.project)[0])
    try:
        rights.require(call.caller, Permission.PROMOTE, call.project, sorted(set(_targets(call))), protected)
    except NotAllowed as error:
        return replace(found, may_move=False, refusal=". ".join(filter(None, (error.message, error.hint()))))
    return found


@handler("review")
def review(call: Call) -> Any:
    """Review a move that broke the glass."""
    body = call.sends(m.Review)
    return call.backend.review(call.project, body.promotion, reason=body.reason, actor=call.actor)


@handler("set_policy")
def set_policy(call: Call) -> Any:
    """Let a policy hold."""
    body = call.sends(m.NewPolicy)
    return call.backend.set_policy(call.project, body.policy, message=body.message, actor=call.actor)


@handler("policies")
def policies(call: Call) -> Page[m.PolicyRecord]:
    """Every policy, the newest first."""
    query = call.asks(v.NumbersQuery)
    found = call.backend.policies(call.project, limit=query.limit, before=query.before)
    return Page.made([m.PolicyRecord.of(one) for one in found], query.limit, lambda one: one.number)


@handler("yank")
def yank(call: Call) -> Any:
    """Withdraw a version."""
    body = call.sends(v.Yank)
    return call.backend.yank(call.project, local(call, body.reference), reason=body.reason, actor=call.actor)


@handler("tag")
def tag(call: Call) -> Any:
    """Set and remove labels."""
    body = call.sends(v.Tagging)
    reference = local(call, body.reference)
    return call.backend.tag(call.project, reference, set=body.set, remove=body.remove, actor=call.actor)
