"""Numbered migrations. A release applies those it has and refuses a database that has more.

Column types are the database's own words for `{id}`, `{text}`, `{bytes}`; numbers are `bigint`, times are microseconds
since 1970 in UTC, digests are 32 raw bytes. `{keyed}` after a table of short rows keeps them in the order of their
primary key, where a database can do so. A statement ends with `;`.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    create table project(
      id {id}, name {text} not null, name_key {text} not null unique,
      revision bigint not null default 0, created_at bigint not null);
    create table collection(
      id {id}, project_id bigint not null references project(id), name {text} not null, name_key {text} not null,
      kind {text} not null, head bigint not null default 0, latest bigint, latest_move bigint not null default 0,
      created_at bigint not null, unique(project_id, name_key));
    create table manifest(digest {bytes} primary key, body {bytes}, size bigint not null);
    create table content(
      manifest {bytes} not null, blob {bytes} not null, size bigint not null, primary key(manifest, blob));
    create index content_blob on content(blob);
    create table version(
      id {id}, collection_id bigint not null references collection(id), number bigint not null,
      digest {bytes} not null references manifest(digest), size bigint not null, author {text} not null,
      message {text} not null, git_commit {text} not null, run_id {text} not null, created_at bigint not null,
      yanked_at bigint, yank_reason {text} not null default '',
      unique(collection_id, number), unique(collection_id, digest));
    create index version_digest on version(digest);
    create table alias(
      collection_id bigint not null references collection(id), name {text} not null, number bigint,
      move bigint not null, revision bigint not null, primary key(collection_id, name));
    create table promotion(
      project_id bigint not null references project(id), revision bigint not null, at bigint not null,
      actor {text} not null, verb {text} not null, reason {text} not null, ticket {text} not null,
      results {text} not null, undoes bigint, primary key(project_id, revision));
    create index promotion_at on promotion(project_id, at);
    create table move(
      collection_id bigint not null references collection(id), alias {text} not null, number bigint not null,
      project_id bigint not null, revision bigint not null, at bigint not null, actor {text} not null,
      old bigint, new bigint, stacked bigint not null, undone_by bigint,
      primary key(collection_id, alias, number));
    create index move_revision on move(project_id, revision);
    create table edge(
      child bigint not null references version(id), parent bigint not null references version(id),
      relation {text} not null, role {text} not null, primary key(child, parent, relation, role));
    create index edge_parent on edge(parent);
    create table tag(
      version_id bigint not null references version(id), name {text} not null, value {text} not null,
      primary key(version_id, name));
    create index tag_name on tag(name, value, version_id);
    create table run(
      id {text} primary key, project_id bigint not null references project(id), name {text} not null,
      status {text} not null, parameters {text} not null, author {text} not null, git_commit {text} not null,
      started_at bigint not null, ended_at bigint, error {text} not null default '');
    create index run_started on run(project_id, started_at);
    create table run_version(
      run_id {text} not null references run(id), version_id bigint not null references version(id),
      relation {text} not null, position bigint not null, primary key(run_id, version_id, relation));
    create table audit(
      id {id}, project_id bigint, at bigint not null, verb {text} not null, subject {text} not null,
      entry {text} not null, leaf {bytes} not null);
    create index audit_project on audit(project_id, id);
    """,
    """
    create table pack(id {id}, name {bytes} not null unique, size bigint not null, created_at bigint not null);
    create table chunk(
      id {bytes} primary key, pack bigint not null references pack(id), place_offset bigint not null,
      stored bigint not null, length bigint not null, form bigint not null) {keyed};
    create index chunk_pack on chunk(pack);
    """,
    """
    create table policy(
      project_id bigint not null references project(id), number bigint not null, digest {bytes} not null,
      body {text} not null, at bigint not null, author {text} not null, message {text} not null,
      primary key(project_id, number));
    create table trusted_key(
      id {text} primary key, person {text} not null, roles {text} not null, public {text} not null,
      added_at bigint not null, added_by {text} not null, replaces {text} not null default '',
      revoked_at bigint, revoked_by {text} not null default '', revoke_reason {text} not null default '');
    create table attestation(
      id {id}, project_id bigint not null references project(id), purpose {text} not null, alias {text} not null,
      envelope {text} not null, at bigint not null, recorded_by {text} not null);
    create index attestation_alias on attestation(project_id, alias, purpose);
    create table attestation_subject(
      attestation_id bigint not null references attestation(id), digest {bytes} not null,
      primary key(attestation_id, digest));
    create index attestation_digest on attestation_subject(digest);
    create table review(
      project_id bigint not null references project(id), revision bigint not null, at bigint not null,
      reviewer {text} not null, reason {text} not null, primary key(project_id, revision));
    alter table promotion add column policy {bytes};
    alter table promotion add column approvals {text} not null default '[]';
    alter table promotion add column break_glass bigint not null default 0;
    """,
    """
    create table account(
      id {id}, name {text} not null, name_key {text} not null unique, kind {text} not null,
      created_at bigint not null, created_by {text} not null, disabled_at bigint);
    create table membership(
      team_id bigint not null references account(id), member_id bigint not null references account(id),
      at bigint not null, added_by {text} not null, primary key(team_id, member_id));
    create index membership_member on membership(member_id);
    create table access_grant(
      id {id}, account_id bigint not null references account(id), role {text} not null,
      project_id bigint references project(id), aliases {text} not null, at bigint not null,
      granted_by {text} not null);
    create index access_grant_account on access_grant(account_id);
    create index access_grant_project on access_grant(project_id);
    create table protected_alias(
      project_id bigint not null references project(id), pattern {text} not null, role {text} not null,
      primary key(project_id, pattern));
    create table access_token(
      id {text} primary key, secret {bytes} not null unique, account_id bigint not null references account(id),
      label {text} not null, scope {text} not null, created_at bigint not null, created_by {text} not null,
      expires_at bigint, revoked_at bigint, last_used_at bigint);
    create index access_token_account on access_token(account_id);
    create table identity_link(
      issuer {text} not null, subject {text} not null, account_id bigint not null references account(id),
      at bigint not null, primary key(issuer, subject));
    create table idempotency(
      account {text} not null, name {text} not null, request {bytes} not null, status bigint not null,
      response {bytes} not null, at bigint not null, primary key(account, name));
    create index idempotency_at on idempotency(at);
    create table upload(
      id {text} primary key, project_id bigint not null references project(id), account {text} not null,
      created_at bigint not null, expires_at bigint not null);
    create index upload_expires on upload(expires_at);
    create table upload_blob(
      upload_id {text} not null references upload(id), blob {bytes} not null, size bigint not null,
      primary key(upload_id, blob));
    create index upload_blob_blob on upload_blob(blob);
    alter table version add column vouched bigint not null default 1;
    alter table project add column collections bigint not null default 0;
    update project set collections = (select count(*) from collection c where c.project_id = project.id);
    create table alias_holder(
      project_id bigint not null references project(id), alias {text} not null, collection {text} not null,
      collection_id bigint not null references collection(id), primary key(project_id, alias, collection)) {keyed};
    insert into alias_holder(project_id, alias, collection, collection_id)
      select c.project_id, a.name, c.name, c.id from alias a join collection c on c.id = a.collection_id;
    drop index if exists move_revision;
    create index move_promoted on move(project_id, revision) where alias <> 'latest';
    create index project_listed on project(name);
    create index collection_listed on collection(project_id, name);
    create index collection_kind on collection(project_id, kind, name);
    create index attestation_listed on attestation(project_id, purpose, alias, id);
    create index audit_verb on audit(verb, id) where verb <> 'log';
    create index audit_project_verb on audit(project_id, verb, id) where verb <> 'log';
    create index audit_of_all on audit(subject, id) where project_id is null;
    """,
    """
    alter table upload add column pieces bigint not null default 0;
    alter table upload add column sent bigint not null default 0;
    """,
    """
    alter table version add column removed_at bigint;
    alter table version add column removed_by {text} not null default '';
    alter table version add column remove_reason {text} not null default '';
    alter table version add column remove_rule {text} not null default '';
    create index version_removed on version(collection_id, number) where removed_at is not null;
    alter table manifest add column erased_at bigint;
    alter table project add column removed_at bigint;
    create table condemned(key {text} primary key, at bigint not null, size bigint not null);
    create table lease(
      project_id bigint not null references project(id), digest {bytes} not null, holder {text} not null,
      until bigint not null, at bigint not null, account {text} not null,
      primary key(project_id, digest, holder));
    create index lease_until on lease(until);
    """,
    "",  # nothing in the tables: an embedded file may have checksums in its pages, which earlier releases leave stale
)

SCHEMA = len(MIGRATIONS)
"""The newest schema that this release knows."""


def statements(migration: str, types: object) -> list[str]:
    """The statements of one migration in a database's own words."""
    text = migration.format(**dict(types))  # type: ignore[call-overload]
    return [s.strip() for s in text.split(";") if s.strip()]
