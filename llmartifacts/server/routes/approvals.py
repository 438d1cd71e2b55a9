"""Approvals, signatures under reports, and the keys that make them."""

from __future__ import annotations

from typing import Any

from llmartifacts.server.calls import Call, handler, whole
from llmartifacts.server.routes.look import local
from llmartifacts.wire.bodies import approvals as k
from llmartifacts.wire.bodies import moves as m
from llmartifacts.wire.bodies.base import Page


@handler("bindings")
def bindings(call: Call) -> Page[k.Binding]:
    """What approvals must be for."""
    request = call.sends(m.PromotionRequest).record()
    for number, target in enumerate(request.targets):
        local(call, target.reference, field=f"targets[{number}].reference")
    return whole(call.backend.bindings(call.project, request), k.Binding.of)


@handler("approve")
def approve(call: Call) -> Any:
    """Keep a signed approval."""
    return call.backend.approve(call.project, call.sends(k.Signed).envelope, actor=call.actor)


@handler("approvals")
def approvals(call: Call) -> Page[k.Approval]:
    """Approvals for an alias, newest first."""
    query = call.asks(k.ApprovalsQuery)
    found = call.backend.approvals(call.project, query.alias, limit=query.limit, before=query.before)
    return Page.made([k.Approval.of(one) for one in found], query.limit, lambda one: one.id)


@handler("withdraw")
def withdraw(call: Call) -> Any:
    """Take an approval back."""
    body = call.sends(k.Withdrawal)
    return call.backend.withdraw(call.project, body.approval, reason=body.reason, actor=call.actor)


@handler("attest")
def attest(call: Call) -> Any:
    """Keep a signature under a report."""
    return call.backend.attest(call.project, call.sends(k.Signed).envelope, actor=call.actor)


@handler("trusted_keys")
def trusted_keys(call: Call) -> Page[k.TrustedKey]:
    """Keys that are or were trusted."""
    return whole(call.backend.trusted_keys(), k.TrustedKey.of)


@handler("trust_key")
def trust_key(call: Call) -> Any:
    """Trust a key, or set its roles."""
    body = call.sends(k.NewKey)
    return call.backend.trust_key(body.public, person=body.person, roles=body.roles, actor=call.actor)


@handler("rotate_key")
def rotate_key(call: Call) -> Any:
    """Let a key hand over to a new one."""
    return call.backend.rotate_key(call.sends(k.Signed).envelope, actor=call.actor)


@handler("revoke_key")
def revoke_key(call: Call) -> Any:
    """Trust a key no more."""
    body = call.sends(k.KeyRevocation)
    return call.backend.revoke_key(body.key, reason=body.reason, actor=call.actor)
