// A team wiki. Everything that belongs to a team carries team_id, and what must never cross teams
// points at its parent by (team_id, id). Functions, triggers, the search indexes and row-level
// security are not Drizzle's to describe: the custom migrations hold them. Feeds are indexed with
// desc().nullsFirst(), as `order by ... desc` sorts: desc() alone is nulls last, of no use to them.
import { sql, type SQL } from "drizzle-orm";
import {
  type AnyPgColumn,
  bigint,
  boolean,
  check,
  customType,
  foreignKey,
  index,
  inet,
  integer,
  jsonb,
  numeric,
  pgEnum,
  pgTable,
  primaryKey,
  text,
  timestamp,
  unique,
  uniqueIndex,
  uuid,
} from "drizzle-orm/pg-core";

const bytea = customType<{ data: Buffer }>({ dataType: () => "bytea" });
const lower = (column: AnyPgColumn): SQL => sql`lower(${column})`;

const id = () => uuid("id").primaryKey().defaultRandom();
const timestamptz = (name: string) => timestamp(name, { withTimezone: true });
const createdAt = () => timestamptz("created_at").notNull().defaultNow();
const updatedAt = () => timestamptz("updated_at").notNull().defaultNow();
const teamId = () =>
  uuid("team_id")
    .notNull()
    .references(() => teams.id, { onDelete: "cascade" });
// Who did something: what was done outlives its author.
const author = (name: string) => uuid(name).references(() => users.id, { onDelete: "set null" });

export const userRole = pgEnum("user_role", ["admin", "member", "viewer", "guest"]);

export const teams = pgTable(
  "teams",
  {
    id: id(),
    name: text("name").notNull(),
    slug: text("slug").notNull().unique(),
    avatarUrl: text("avatar_url"),
    preferences: jsonb("preferences").notNull().default({}),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
    deletedAt: timestamptz("deleted_at"),
  },
  (t) => [
    check("teams_name_length", sql`char_length(${t.name}) between 1 and 100`),
    check("teams_slug_format", sql`${t.slug} ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'`),
  ],
);

export const users = pgTable(
  "users",
  {
    id: id(),
    teamId: teamId(),
    email: text("email").notNull(),
    name: text("name").notNull(),
    role: userRole("role").notNull().default("member"),
    avatarUrl: text("avatar_url"),
    passwordHash: text("password_hash"),
    timezone: text("timezone").notNull().default("UTC"),
    lastActiveAt: timestamptz("last_active_at"),
    suspendedAt: timestamptz("suspended_at"),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
  },
  (t) => [
    unique("users_team_id_id_unique").on(t.teamId, t.id),
    uniqueIndex("users_team_email_unique").on(t.teamId, lower(t.email)),
    index("users_name_trgm_idx").using("gin", t.name.op("gin_trgm_ops")),
    index("users_team_active_idx")
      .on(t.teamId, t.lastActiveAt.desc().nullsLast())
      .where(sql`${t.suspendedAt} is null`),
    check("users_email_format", sql`${t.email} ~ '^[^@[:space:]]+@[^@[:space:]]+$'`),
    check("users_name_length", sql`char_length(${t.name}) between 1 and 200`),
  ],
);

export const sessions = pgTable(
  "sessions",
  {
    id: id(),
    teamId: teamId(),
    userId: uuid("user_id").notNull(),
    // sha256 of the cookie's token; the token itself is never stored.
    tokenHash: bytea("token_hash").notNull().unique(),
    ip: inet("ip"),
    userAgent: text("user_agent"),
    createdAt: createdAt(),
    lastSeenAt: timestamptz("last_seen_at").notNull().defaultNow(),
    expiresAt: timestamptz("expires_at").notNull(),
    revokedAt: timestamptz("revoked_at"),
  },
  (t) => [
    foreignKey({
      name: "sessions_user_fk",
      columns: [t.teamId, t.userId],
      foreignColumns: [users.teamId, users.id],
    }).onDelete("cascade"),
    index("sessions_user_idx").on(t.userId),
    index("sessions_live_expires_idx").on(t.expiresAt).where(sql`${t.revokedAt} is null`),
    check("sessions_token_hash_length", sql`octet_length(${t.tokenHash}) = 32`),
    check("sessions_expire_later", sql`${t.expiresAt} > ${t.createdAt}`),
  ],
);

export const collectionAccess = pgEnum("collection_access", ["private", "read", "read_write"]);

export const collections = pgTable(
  "collections",
  {
    id: id(),
    teamId: teamId(),
    name: text("name").notNull(),
    slug: text("slug").notNull(),
    description: text("description"),
    icon: text("icon"),
    color: text("color"),
    // What members of the team may do without an invitation.
    access: collectionAccess("access").notNull().default("read_write"),
    // A fractional index: moving one collection rewrites one row.
    position: text("position").notNull(),
    createdBy: author("created_by"),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
    deletedAt: timestamptz("deleted_at"),
  },
  (t) => [
    unique("collections_team_id_id_unique").on(t.teamId, t.id),
    unique("collections_team_slug_unique").on(t.teamId, t.slug),
    index("collections_sidebar_idx")
      .on(t.teamId, t.position)
      .where(sql`${t.deletedAt} is null`),
    index("collections_created_by_idx").on(t.createdBy),
    check("collections_name_length", sql`char_length(${t.name}) between 1 and 100`),
    check("collections_color_format", sql`${t.color} ~ '^#[0-9a-f]{6}$'`),
  ],
);

export const documentStatus = pgEnum("document_status", ["draft", "published", "archived"]);

export const documents = pgTable(
  "documents",
  {
    id: id(),
    teamId: teamId(),
    collectionId: uuid("collection_id"),
    parentDocumentId: uuid("parent_document_id"),
    // The short name in links, which stays when the title changes.
    urlId: text("url_id").notNull(),
    title: text("title").notNull().default(""),
    text: text("text").notNull().default(""),
    status: documentStatus("status").notNull().default("draft"),
    position: text("position"),
    revisionCount: integer("revision_count").notNull().default(0),
    createdBy: author("created_by"),
    updatedBy: author("updated_by"),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
    publishedAt: timestamptz("published_at"),
    archivedAt: timestamptz("archived_at"),
    deletedAt: timestamptz("deleted_at"),
  },
  (t) => [
    unique("documents_team_id_id_unique").on(t.teamId, t.id),
    unique("documents_team_url_id_unique").on(t.teamId, t.urlId),
    foreignKey({
      name: "documents_collection_fk",
      columns: [t.teamId, t.collectionId],
      foreignColumns: [collections.teamId, collections.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "documents_parent_fk",
      columns: [t.teamId, t.parentDocumentId],
      foreignColumns: [t.teamId, t.id],
    }).onDelete("cascade"),
    index("documents_recent_idx")
      .on(t.teamId, t.updatedAt.desc().nullsFirst())
      .where(sql`${t.deletedAt} is null`),
    index("documents_collection_idx")
      .on(t.collectionId, t.position)
      .where(sql`${t.deletedAt} is null`),
    index("documents_trash_idx")
      .on(t.teamId, t.deletedAt.desc().nullsFirst())
      .where(sql`${t.deletedAt} is not null`),
    index("documents_parent_idx").on(t.parentDocumentId),
    index("documents_created_by_idx").on(t.createdBy),
    index("documents_updated_by_idx").on(t.updatedBy),
    check("documents_url_id_format", sql`${t.urlId} ~ '^[A-Za-z0-9]{8,20}$'`),
    check("documents_title_length", sql`char_length(${t.title}) <= 500`),
    check("documents_not_own_parent", sql`${t.parentDocumentId} <> ${t.id}`),
    check(
      "documents_published_in_collection",
      sql`${t.status} <> 'published' or num_nulls(${t.publishedAt}, ${t.collectionId}) = 0`,
    ),
    check(
      "documents_archived_at_set",
      sql`(${t.status} = 'archived') = (${t.archivedAt} is not null)`,
    ),
  ],
);

export const documentRevisions = pgTable(
  "document_revisions",
  {
    id: id(),
    teamId: teamId(),
    documentId: uuid("document_id").notNull(),
    // Whatever is inserted, a trigger gives the document's next number.
    number: integer("number").notNull().default(0),
    title: text("title").notNull(),
    text: text("text").notNull(),
    authorId: author("author_id"),
    createdAt: createdAt(),
  },
  (t) => [
    foreignKey({
      name: "document_revisions_document_fk",
      columns: [t.teamId, t.documentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    unique("document_revisions_number_unique").on(t.documentId, t.number),
    index("document_revisions_author_idx").on(t.authorId),
    check("document_revisions_number_positive", sql`${t.number} > 0`),
  ],
);

export const comments = pgTable(
  "comments",
  {
    id: id(),
    teamId: teamId(),
    documentId: uuid("document_id").notNull(),
    parentCommentId: uuid("parent_comment_id"),
    authorId: author("author_id"),
    body: text("body").notNull(),
    // Where in the text a thread is pinned; replies have none.
    anchor: jsonb("anchor"),
    resolvedBy: author("resolved_by"),
    resolvedAt: timestamptz("resolved_at"),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
    deletedAt: timestamptz("deleted_at"),
  },
  (t) => [
    unique("comments_team_id_id_unique").on(t.teamId, t.id),
    unique("comments_document_id_id_unique").on(t.documentId, t.id),
    foreignKey({
      name: "comments_document_fk",
      columns: [t.teamId, t.documentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "comments_parent_fk",
      columns: [t.documentId, t.parentCommentId],
      foreignColumns: [t.documentId, t.id],
    }).onDelete("cascade"),
    index("comments_document_idx").on(t.documentId, t.createdAt),
    index("comments_open_threads_idx")
      .on(t.documentId, t.createdAt)
      .where(
        sql`${t.parentCommentId} is null and ${t.resolvedAt} is null and ${t.deletedAt} is null`,
      ),
    index("comments_parent_idx").on(t.parentCommentId),
    index("comments_author_idx").on(t.authorId),
    index("comments_resolved_by_idx").on(t.resolvedBy),
    check("comments_body_length", sql`char_length(${t.body}) between 1 and 10000`),
    check("comments_replies_unanchored", sql`${t.parentCommentId} is null or ${t.anchor} is null`),
    check(
      "comments_resolver_resolved",
      sql`${t.resolvedBy} is null or ${t.resolvedAt} is not null`,
    ),
  ],
);

export const notificationEvent = pgEnum("notification_event", [
  "document_published",
  "document_updated",
  "comment_created",
  "comment_resolved",
  "mentioned",
]);

export const notifications = pgTable(
  "notifications",
  {
    id: id(),
    teamId: teamId(),
    userId: uuid("user_id").notNull(),
    actorId: author("actor_id"),
    event: notificationEvent("event").notNull(),
    documentId: uuid("document_id"),
    commentId: uuid("comment_id"),
    payload: jsonb("payload").notNull().default({}),
    readAt: timestamptz("read_at"),
    emailedAt: timestamptz("emailed_at"),
    createdAt: createdAt(),
  },
  (t) => [
    foreignKey({
      name: "notifications_user_fk",
      columns: [t.teamId, t.userId],
      foreignColumns: [users.teamId, users.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "notifications_document_fk",
      columns: [t.teamId, t.documentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "notifications_comment_fk",
      columns: [t.teamId, t.commentId],
      foreignColumns: [comments.teamId, comments.id],
    }).onDelete("cascade"),
    index("notifications_feed_idx").on(t.userId, t.createdAt.desc().nullsFirst()),
    index("notifications_unread_idx")
      .on(t.userId, t.createdAt.desc().nullsFirst())
      .where(sql`${t.readAt} is null`),
    index("notifications_document_idx").on(t.documentId),
    index("notifications_comment_idx").on(t.commentId),
    index("notifications_actor_idx").on(t.actorId),
    check("notifications_not_to_actor", sql`${t.actorId} <> ${t.userId}`),
  ],
);

export const auditEvents = pgTable(
  "audit_events",
  {
    id: bigint("id", { mode: "bigint" }).primaryKey().generatedAlwaysAsIdentity(),
    teamId: teamId(),
    // No foreign key: the log keeps naming a user who is gone.
    actorId: uuid("actor_id"),
    action: text("action").notNull(),
    subjectType: text("subject_type"),
    subjectId: uuid("subject_id"),
    ip: inet("ip"),
    payload: jsonb("payload").notNull().default({}),
    createdAt: createdAt(),
  },
  (t) => [
    index("audit_events_feed_idx").on(t.teamId, t.createdAt.desc().nullsFirst()),
    index("audit_events_actor_idx").on(t.teamId, t.actorId, t.createdAt.desc().nullsFirst()),
    index("audit_events_subject_idx")
      .on(t.subjectId, t.createdAt.desc().nullsFirst())
      .where(sql`${t.subjectId} is not null`),
    check("audit_events_action_format", sql`${t.action} ~ '^[a-z_]+[.][a-z_]+$'`),
    check(
      "audit_events_subject_complete",
      sql`(${t.subjectType} is null) = (${t.subjectId} is null)`,
    ),
  ],
);

export const tags = pgTable(
  "tags",
  {
    id: id(),
    teamId: teamId(),
    name: text("name").notNull(),
    color: text("color"),
    createdAt: createdAt(),
  },
  (t) => [
    unique("tags_team_id_id_unique").on(t.teamId, t.id),
    uniqueIndex("tags_team_name_unique").on(t.teamId, lower(t.name)),
    check("tags_name_length", sql`char_length(${t.name}) between 1 and 50`),
    check("tags_color_format", sql`${t.color} ~ '^#[0-9a-f]{6}$'`),
  ],
);

export const documentTags = pgTable(
  "document_tags",
  {
    teamId: teamId(),
    documentId: uuid("document_id").notNull(),
    tagId: uuid("tag_id").notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ columns: [t.documentId, t.tagId] }),
    foreignKey({
      name: "document_tags_document_fk",
      columns: [t.teamId, t.documentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "document_tags_tag_fk",
      columns: [t.teamId, t.tagId],
      foreignColumns: [tags.teamId, tags.id],
    }).onDelete("cascade"),
    index("document_tags_tag_idx").on(t.tagId),
  ],
);

export const stars = pgTable(
  "stars",
  {
    teamId: teamId(),
    userId: uuid("user_id").notNull(),
    documentId: uuid("document_id").notNull(),
    position: text("position").notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ columns: [t.userId, t.documentId] }),
    foreignKey({
      name: "stars_user_fk",
      columns: [t.teamId, t.userId],
      foreignColumns: [users.teamId, users.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "stars_document_fk",
      columns: [t.teamId, t.documentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    index("stars_document_idx").on(t.documentId),
  ],
);

export const views = pgTable(
  "views",
  {
    teamId: teamId(),
    userId: uuid("user_id").notNull(),
    documentId: uuid("document_id").notNull(),
    count: bigint("count", { mode: "number" }).notNull().default(1),
    firstViewedAt: timestamptz("first_viewed_at").notNull().defaultNow(),
    lastViewedAt: timestamptz("last_viewed_at").notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ columns: [t.userId, t.documentId] }),
    foreignKey({
      name: "views_user_fk",
      columns: [t.teamId, t.userId],
      foreignColumns: [users.teamId, users.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "views_document_fk",
      columns: [t.teamId, t.documentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    index("views_history_idx").on(t.userId, t.lastViewedAt.desc().nullsFirst()),
    index("views_document_idx").on(t.documentId, t.lastViewedAt.desc().nullsFirst()),
    check("views_count_positive", sql`${t.count} > 0`),
    check("views_first_before_last", sql`${t.firstViewedAt} <= ${t.lastViewedAt}`),
  ],
);

export const backlinks = pgTable(
  "backlinks",
  {
    teamId: teamId(),
    sourceDocumentId: uuid("source_document_id").notNull(),
    targetDocumentId: uuid("target_document_id").notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ columns: [t.sourceDocumentId, t.targetDocumentId] }),
    foreignKey({
      name: "backlinks_source_fk",
      columns: [t.teamId, t.sourceDocumentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "backlinks_target_fk",
      columns: [t.teamId, t.targetDocumentId],
      foreignColumns: [documents.teamId, documents.id],
    }).onDelete("cascade"),
    index("backlinks_target_idx").on(t.targetDocumentId),
    check("backlinks_not_to_self", sql`${t.sourceDocumentId} <> ${t.targetDocumentId}`),
  ],
);

export const webhooks = pgTable(
  "webhooks",
  {
    id: id(),
    teamId: teamId(),
    name: text("name").notNull(),
    url: text("url").notNull(),
    // Signs what is sent, so it has to be readable: encrypted, not hashed.
    secretCiphertext: bytea("secret_ciphertext").notNull(),
    events: text("events").array().notNull(),
    enabled: boolean("enabled").notNull().default(true),
    failureCount: integer("failure_count").notNull().default(0),
    lastDeliveredAt: timestamptz("last_delivered_at"),
    createdBy: author("created_by"),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
  },
  (t) => [
    index("webhooks_team_idx").on(t.teamId),
    index("webhooks_events_idx").using("gin", t.events).where(sql`${t.enabled}`),
    index("webhooks_created_by_idx").on(t.createdBy),
    check("webhooks_url_https", sql`${t.url} ~ '^https://[^[:space:]]+$'`),
    check("webhooks_events_present", sql`cardinality(${t.events}) > 0`),
    check("webhooks_failure_count_natural", sql`${t.failureCount} >= 0`),
  ],
);

export const apiKeys = pgTable(
  "api_keys",
  {
    id: id(),
    teamId: teamId(),
    userId: uuid("user_id").notNull(),
    name: text("name").notNull(),
    // sha256 of the key; the last characters let its owner tell one key from another.
    keyHash: bytea("key_hash").notNull().unique(),
    lastCharacters: text("last_characters").notNull(),
    scopes: text("scopes").array().notNull().default([]),
    lastUsedAt: timestamptz("last_used_at"),
    expiresAt: timestamptz("expires_at"),
    revokedAt: timestamptz("revoked_at"),
    createdAt: createdAt(),
  },
  (t) => [
    foreignKey({
      name: "api_keys_user_fk",
      columns: [t.teamId, t.userId],
      foreignColumns: [users.teamId, users.id],
    }).onDelete("cascade"),
    index("api_keys_team_idx").on(t.teamId, t.createdAt.desc().nullsFirst()),
    index("api_keys_user_idx").on(t.userId),
    check("api_keys_key_hash_length", sql`octet_length(${t.keyHash}) = 32`),
    check("api_keys_last_characters_length", sql`char_length(${t.lastCharacters}) = 4`),
    check("api_keys_expire_later", sql`${t.expiresAt} > ${t.createdAt}`),
  ],
);

export const llmProvider = pgEnum("llm_provider", ["anthropic", "openai", "openai_compatible"]);

export const teamLlmConfigs = pgTable(
  "team_llm_configs",
  {
    id: id(),
    teamId: teamId(),
    provider: llmProvider("provider").notNull().default("openai_compatible"),
    model: text("model").notNull(),
    baseUrl: text("base_url"),
    apiKeyCiphertext: bytea("api_key_ciphertext"),
    // Which of the application's keys encrypted it, so that keys can be rotated.
    encryptionKeyVersion: integer("encryption_key_version"),
    temperature: numeric("temperature", { precision: 3, scale: 2 }),
    maxOutputTokens: integer("max_output_tokens"),
    options: jsonb("options").notNull().default({}),
    isDefault: boolean("is_default").notNull().default(false),
    createdBy: author("created_by"),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
  },
  (t) => [
    unique("team_llm_configs_model_unique").on(t.teamId, t.provider, t.model),
    uniqueIndex("team_llm_configs_one_default").on(t.teamId).where(sql`${t.isDefault}`),
    index("team_llm_configs_created_by_idx").on(t.createdBy),
    check(
      "team_llm_configs_own_model_has_base_url",
      sql`${t.provider} <> 'openai_compatible' or ${t.baseUrl} is not null`,
    ),
    check("team_llm_configs_base_url_http", sql`${t.baseUrl} ~ '^https?://[^[:space:]]+$'`),
    check(
      "team_llm_configs_key_versioned",
      sql`(${t.apiKeyCiphertext} is null) = (${t.encryptionKeyVersion} is null)`,
    ),
    check("team_llm_configs_temperature_range", sql`${t.temperature} between 0 and 2`),
    check("team_llm_configs_max_output_tokens_positive", sql`${t.maxOutputTokens} > 0`),
  ],
);
