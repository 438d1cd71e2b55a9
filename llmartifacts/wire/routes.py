"""Every route of the HTTP API: what it asks for, takes and gives.

The server binds each to a handler by its name and refuses to start if one is missing; the client and the tests of
rights read the same table. The name is that of the `Backend` method where there is one. Paths are below `/api/v1`;
`{project}` is a project's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from llmartifacts.records.rights import Permission
from llmartifacts.wire.bodies import accounts as a
from llmartifacts.wire.bodies import approvals as k
from llmartifacts.wire.bodies import audit as u
from llmartifacts.wire.bodies import evidence as e
from llmartifacts.wire.bodies import lineage as n
from llmartifacts.wire.bodies import moves as m
from llmartifacts.wire.bodies import reading as r
from llmartifacts.wire.bodies import removal as x
from llmartifacts.wire.bodies import server as s
from llmartifacts.wire.bodies import transfer as t
from llmartifacts.wire.bodies import upkeep as c
from llmartifacts.wire.bodies import versions as v
from llmartifacts.wire.bodies.base import Model, Page, Query

BASE = "/api/v1"
Method = Literal["GET", "POST", "PUT", "DELETE"]
BYTES = "application/octet-stream"
JSON = "application/json"
LINES = "application/jsonl"


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        name: Unique; the server's handler and the client's call have it.
        method: HTTP method. A `GET` is answered to `HEAD` too.
        path: Below `/api/v1`.
        permission: What it asks for, in `{project}` where the path has one, else on the whole registry.
        summary: What it does, one line.
        query: Model of the query parameters; None if it takes none.
        body: Model of the JSON body, `BYTES` for raw bytes, None for none.
        result: Model of the JSON answer, a media type for another one, None for an empty answer.
        status: HTTP status of success.
        writes: Whether it changes something: it takes an `Idempotency-Key`, and is one unit of work.
        slow: Whether it may run for minutes, so that no ordinary deadline holds.
        also: Further statuses of an answer, such as 206 to a `Range`.
    """

    name: str
    method: Method
    path: str
    permission: Permission
    summary: str
    query: type[Query] | None = None
    body: type[Model] | str | None = None
    result: type[Model] | str | None = None
    status: int = 200
    writes: bool = False
    slow: bool = False
    also: tuple[int, ...] = ()

    @property
    def in_project(self) -> bool:
        """Whether its permission is asked for in one project."""
        return self.path.startswith(P)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters of its path, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @property
    def errors(self) -> tuple[int, ...]:
        """Statuses of answers that are no success."""
        made = {400, 404, 408, 414, 422, 429, 431, 500, 503, 504}
        if self.permission is not Permission.PUBLIC:
            made |= {401, 403}
        if self.writes:
            made |= {409}
        if self.body is not None:
            made |= {411, 413, 415}
        return tuple(sorted(made | {status for status in self.also if status >= 400}))


P = "/projects/{project}"
_PUBLIC, _SIGNED_IN = Permission.PUBLIC, Permission.SIGNED_IN
_READ, _LOG, _COMMIT, _EVALUATE = Permission.READ, Permission.LOG, Permission.COMMIT, Permission.EVALUATE
_PROMOTE, _APPROVE = Permission.PROMOTE, Permission.APPROVE
_ADMIN, _OPERATE = Permission.ADMIN, Permission.OPERATE


def _get(
    name: str,
    path: str,
    permission: Permission,
    summary: str,
    result: type[Model] | str,
    query: type[Query] | None = None,
    **more: Any,
) -> Route:
    return Route(name, "GET", path, permission, summary, query, None, result, **more)


def _ask(
    name: str, path: str, permission: Permission, summary: str, body: type[Model], result: type[Model], **more: Any
) -> Route:
    """A question that is too long for an address."""
    return Route(name, "POST", path, permission, summary, None, body, result, **more)


def _post(
    name: str,
    path: str,
    permission: Permission,
    summary: str,
    body: type[Model] | str | None,
    result: type[Model] | str | None,
    **more: Any,
) -> Route:
    status = more.pop("status", 204 if result is None else 200)
    return Route(name, "POST", path, permission, summary, None, body, result, status, writes=True, **more)


def _put(name: str, path: str, permission: Permission, summary: str, body: Any, result: Any, **more: Any) -> Route:
    status = 204 if result is None else 200
    return Route(name, "PUT", path, permission, summary, None, body, result, status, writes=True, **more)


def _delete(name: str, path: str, permission: Permission, summary: str) -> Route:
    return Route(name, "DELETE", path, permission, summary, status=204, writes=True)


ROUTES: tuple[Route, ...] = (
    # the server, and who asks
    _get("info", "/info", _PUBLIC, "What this server is", s.Info),
    _get("me", "/me", _SIGNED_IN, "Who asks, and what they may do", a.Identity),
    _post("exchange", "/auth/exchange", _PUBLIC, "A login provider's token for a token", a.Exchange, a.NewToken),
    _get("tokens", "/tokens", _SIGNED_IN, "Tokens of an account", Page[a.TokenInfo], a.TokensQuery),
    _post("create_token", "/tokens", _SIGNED_IN, "Make a token; shown once", a.TokenRequest, a.NewToken, status=201),
    _post("revoke_token", "/tokens/{id}/revoke", _SIGNED_IN, "Revoke a token", None, a.TokenInfo),
    # accounts
    _get("accounts", "/accounts", _OPERATE, "Accounts, by name", Page[a.Account], a.AccountsQuery),
    _post("create_account", "/accounts", _OPERATE, "Make an account", a.NewAccount, a.Account, status=201),
    _get("account", "/accounts/{name}", _OPERATE, "One account", a.Account),
    _post("disable_account", "/accounts/{name}/disable", _OPERATE, "Let nobody in as it", None, a.Account),
    _post("enable_account", "/accounts/{name}/enable", _OPERATE, "Let it in again", None, a.Account),
    _put("add_member", "/teams/{team}/members/{member}", _OPERATE, "Put somebody into a team", None, a.Account),
    _delete("remove_member", "/teams/{team}/members/{member}", _OPERATE, "Take somebody out of a team"),
    _get("registry_grants", "/grants", _OPERATE, "Grants of every project", Page[a.Grant], a.GrantsQuery),
    _post("grant_everywhere", "/grants", _OPERATE, "Give a role in every project", a.NewGrant, a.Grant, status=201),
    _post("revoke_everywhere", "/grants/{id}/revoke", _OPERATE, "Take any grant back", None, None),
    _get("grants", f"{P}/grants", _ADMIN, "Grants of a project", Page[a.Grant], a.GrantsQuery),
    _post("grant", f"{P}/grants", _ADMIN, "Give a role in a project", a.NewGrant, a.Grant, status=201),
    _post("revoke_grant", f"{P}/grants/{{id}}/revoke", _ADMIN, "Take a grant of a project back", None, None),
    _get("protections", f"{P}/protected-aliases", _ADMIN, "Protected aliases", a.Protections),
    _put("protect", f"{P}/protected-aliases", _ADMIN, "Set all protected aliases", a.Protections, a.Protections),
    # projects
    _get("projects", "/projects", _SIGNED_IN, "Projects that one may see, by name", Page[v.Project], v.NamesQuery),
    _post("create_project", "/projects", _OPERATE, "Make a project", v.NewProject, v.Project, status=201),
    # resolve
    _get("read", f"{P}/read", _READ, "References at one revision, with manifests", r.Reading, v.ReferencesQuery),
    _ask("read_many", f"{P}/read", _READ, "References at one revision", v.References, r.Reading),
    _ask("manifests", "/manifests", _SIGNED_IN, "Manifests by digest, those one may see", r.Digests, r.Manifests),
    _get("manifest", "/manifests/{digest}", _SIGNED_IN, "The canonical bytes of a manifest", JSON),
    _get("revision", f"{P}/revision", _READ, "The project's revision now", v.Revision),
    # log
    _post("begin_upload", f"{P}/uploads", _COMMIT, "Begin an upload", t.Begin, t.Upload, status=201),
    # These take effect once however often they are sent, and are no part of a transaction: they take long.
    Route(
        "put_piece",
        "PUT",
        f"{P}/uploads/{{id}}/pieces/{{sha256}}",
        _COMMIT,
        "Send a piece, at most 8 MiB",
        body=BYTES,
        status=204,
        slow=True,
    ),
    _ask("missing_pieces", f"{P}/uploads/{{id}}/missing", _COMMIT, "Pieces not there yet", t.Pieces, t.Missing),
    _ask(
        "finish_upload",
        f"{P}/uploads/{{id}}/finish",
        _COMMIT,
        "Verify an upload",
        t.Finish,
        t.Finished,
        slow=True,
        also=(409,),
    ),
    Route("abort_upload", "DELETE", f"{P}/uploads/{{id}}", _COMMIT, "Throw an upload away", status=204),
    _post("commit", f"{P}/commit", _COMMIT, "Log versions, all or none", m.Drafts, m.Versions, slow=True),
    # bytes
    _get(
        "blob",
        "/blobs/{digest}",
        _SIGNED_IN,
        "The bytes of a blob; takes a Range",
        BYTES,
        slow=True,
        also=(206, 304, 307, 416),
    ),
    _get("recipe", "/blobs/{digest}/recipe", _SIGNED_IN, "How a blob is put together", BYTES, slow=True),
    _get(
        "chunks",
        "/blobs/{digest}/chunks",
        _SIGNED_IN,
        "Its stored chunks; takes a Range",
        BYTES,
        slow=True,
        also=(206, 307, 409, 416),
    ),
    Route(
        "sums",
        "POST",
        "/blobs/{digest}/sums",
        _SIGNED_IN,
        "Sums of the rows in some of its chunks: 16 bytes of BLAKE3 for each",
        body=t.Sums,
        result=BYTES,
        slow=True,
        also=(409,),
    ),
    _ask("storage", "/storage", _SIGNED_IN, "How blobs are stored", c.Blobs, Page[c.Storage]),
    # promote, rollback
    _post("promote", f"{P}/promotions", _PROMOTE, "Move aliases", m.PromotionRequest, m.Promotion, slow=True),
    _get("promotions", f"{P}/promotions", _READ, "The newest promotions", Page[m.Promotion], v.NumbersQuery),
    _post("rollback", f"{P}/rollback", _PROMOTE, "Undo a promotion", m.Rollback, m.Promotion),
    _post("remove_alias", f"{P}/aliases/remove", _PROMOTE, "Remove an alias", m.AliasRemoval, m.Promotion),
    _ask("gate", f"{P}/gate", _READ, "What the gates say; nothing moves", m.PromotionRequest, m.Decision, slow=True),
    _post("review", f"{P}/review", _PROMOTE, "Review a move that broke the glass", m.Review, m.Promotion),
    _get("evidence", f"{P}/evidence", _READ, "A version and the reports on it", e.Evidence, v.ReferenceQuery),
    _put("set_policy", f"{P}/policy", _ADMIN, "Let a policy hold", m.NewPolicy, m.PolicyRecord),
    _get("policies", f"{P}/policies", _READ, "Every policy, the newest first", Page[m.PolicyRecord], v.NumbersQuery),
    _post("yank", f"{P}/yank", _PROMOTE, "Withdraw a version", v.Yank, v.Version),
    _post("tag", f"{P}/tag", _LOG, "Set and remove labels of a version", v.Tagging, v.Version),
    # approvals
    _ask("bindings", f"{P}/bindings", _READ, "What approvals must be for", m.PromotionRequest, Page[k.Binding]),
    _post("approve", f"{P}/approvals", _APPROVE, "Keep a signed approval", k.Signed, k.Approval),
    _get("approvals", f"{P}/approvals", _READ, "Approvals for an alias", Page[k.Approval], k.ApprovalsQuery),
    _post("withdraw", f"{P}/approvals/withdraw", _APPROVE, "Take an approval back", k.Withdrawal, k.Approval),
    _post("attest", f"{P}/attestations", _EVALUATE, "Keep a signature under a report", k.Signed, k.Subject),
    _get("signers", f"{P}/signers", _READ, "Who signed a report", e.Signers, v.ReferenceQuery),
    _get("trusted_keys", "/keys", _SIGNED_IN, "Keys that are or were trusted", Page[k.TrustedKey]),
    _post("trust_key", "/keys", _OPERATE, "Trust a key, or set its roles", k.NewKey, k.TrustedKey),
    _post("rotate_key", "/keys/rotate", _OPERATE, "Let a key hand over to a new one", k.Signed, k.TrustedKey),
    _post("revoke_key", "/keys/revoke", _OPERATE, "Trust a key no more", k.KeyRevocation, k.TrustedKey),
    # look
    _get("collections", f"{P}/collections", _READ, "Collections, by name", Page[v.Collection], v.CollectionsQuery),
    _get(
        "versions",
        f"{P}/collections/{{name}}/versions",
        _READ,
        "Versions of a collection, newest first",
        Page[v.Version],
        v.VersionsQuery,
    ),
    _get("history", f"{P}/history", _READ, "Moves of an alias, newest first", Page[m.HistoryEntry], m.HistoryQuery),
    _get("state", f"{P}/state", _READ, "What an alias meant, at a time", m.State, m.StateQuery),
    _get("lineage", f"{P}/lineage", _READ, "The whole closure of a version", n.Lineage, n.LineageQuery),
    # runs
    _get("runs", f"{P}/runs", _READ, "The newest runs", Page[v.RunRecord], v.IdsQuery),
    _post("start_run", f"{P}/runs", _LOG, "Begin a run", v.NewRun, v.RunRecord, status=201),
    _get("run", f"{P}/runs/{{id}}", _READ, "One run", v.RunRecord),
    _post("use_in_run", f"{P}/runs/{{id}}/use", _LOG, "Record that a run read a version", v.Use, None),
    _post("end_run", f"{P}/runs/{{id}}/end", _LOG, "End a run", v.RunEnd, v.RunRecord),
    # audit
    _get("project_audit", f"{P}/audit", _READ, "Audit entries of a project, in order", u.AuditPage, u.AuditQuery),
    _get("audit", "/audit", _OPERATE, "Audit entries, in order", u.AuditPage, u.AuditQuery),
    _get("audit_log", "/audit/log", _OPERATE, "The newest audit entries", Page[u.AuditEntry], u.AuditLogQuery),
    _get("export_audit", "/audit/export", _OPERATE, "Every entry, one a line, as hashed", LINES, slow=True),
    _get("audit_checkpoint", "/audit/checkpoint", _SIGNED_IN, "Size and root of the audit", u.Checkpoint),
    _get("audit_inclusion", "/audit/inclusion", _SIGNED_IN, "Proof of an entry", u.InclusionProof, u.InclusionQuery),
    _get(
        "audit_consistency",
        "/audit/consistency",
        _SIGNED_IN,
        "Proof that the audit only grew",
        u.ConsistencyProof,
        u.ConsistencyQuery,
    ),
    _ask("verify_audit", "/audit/verify", _OPERATE, "Check the audit", u.AuditCheck, u.AuditVerification, slow=True),
    # upkeep
    _ask("verify", "/verify", _OPERATE, "Check that all is there", c.VerifyRequest, c.Verification, slow=True),
    _get("stats", f"{P}/stats", _READ, "Bytes of a project's collection", c.Stats, c.StatsQuery, slow=True),
    _get("registry_stats", "/stats", _OPERATE, "Bytes of the whole registry", c.Stats, slow=True),
    _post("gc", "/gc", _OPERATE, "Free what no version needs", c.CollectRequest, c.Collected, slow=True),
    _post("erase", f"{P}/erase", _ADMIN, "Erase documents for good", x.EraseRequest, x.Erased, slow=True),
    _post(
        "remove_project",
        "/project-removals",
        _OPERATE,
        "Remove a project, with proof",
        x.ProjectRemoval,
        x.RemovedProject,
        slow=True,
    ),
    _post("lease", f"{P}/leases", _READ, "Hold versions that one may read, for a time", x.LeaseRequest, x.Lease),
    _get("leases", f"{P}/leases", _READ, "What is held", Page[x.Lease]),
    _post("migrate", "/migrate", _OPERATE, "Cut large blobs into chunks", c.MigrateRequest, c.Migrated, slow=True),
    # preview
    _ask("preview", f"{P}/preview", _READ, "Render a prompt", s.PreviewRequest, s.Preview),
)
"""Every route below `/api/v1`. Outside it: `/healthz`, `/readyz`, `/metrics` and `/api/v1/openapi.json`, all public."""

BY_NAME: dict[str, Route] = {route.name: route for route in ROUTES}
