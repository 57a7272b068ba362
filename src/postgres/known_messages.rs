//! Messages by which poolers and hosted services reject a login. Their SQLSTATE says little, so
//! that they are recognized by their text.

/// A message, what it means, and what to do about it.
pub struct KnownMessage {
    /// The SQLSTATE that it comes with; empty for any.
    code: &'static str,
    /// What it contains.
    texts: &'static [&'static str],
    /// The SQLSTATE that it means, as PostgreSQL would have it.
    pub meaning: &'static str,
    pub hint: Option<&'static str>,
}

/// The server rejected the login, for a reason that has no SQLSTATE of its own.
pub const REJECTED: &str = "08004";

/// The pooler runs in a mode that has no transactions.
pub const NO_TRANSACTIONS: &str = "0A000";

const fn message(
    texts: &'static [&'static str],
    meaning: &'static str,
    hint: &'static str,
) -> KnownMessage {
    KnownMessage { code: "", texts, meaning, hint: Some(hint) }
}

/// One whose meaning has a hint of its own.
const fn synonym(texts: &'static [&'static str], meaning: &'static str) -> KnownMessage {
    KnownMessage { code: "", texts, meaning, hint: None }
}

const WANTS_TLS: &str = "add sslmode=require to the URL: the server requires TLS";
const PG_HBA_WANTS_TLS: &str =
    "add sslmode=require to the URL: the server's pg_hba.conf rejects connections without TLS";

const POOLER_IS_FULL: &str =
    "raise the pooler's pool size, or have other clients use transaction mode";

/// The first that fits counts.
const KNOWN: &[KnownMessage] = &[
    // PgBouncer's own.
    message(
        &["unsupported startup parameter"],
        REJECTED,
        "remove options from the URL, which the pooler does not pass on, or connect to the server \
         directly",
    ),
    message(
        &["no such user"],
        "28000",
        "add the role to the pooler's auth_file or auth_query, or correct the user in the URL",
    ),
    message(
        &["no such database"],
        "3D000",
        "add the database to the pooler's [databases], or correct its name in the URL",
    ),
    message(&["SSL required"], "28000", WANTS_TLS),
    message(
        &["query_wait_timeout"],
        "53300",
        "raise the pooler's pool_size, or find out which clients keep its connections busy",
    ),
    message(
        &["login rejected"],
        "28000",
        "allow this role, database and address in the pooler's auth_hba_file",
    ),
    message(
        &["bouncer config error"],
        REJECTED,
        "check the pooler's log for its configuration error",
    ),
    message(
        &["statement pooling mode"],
        NO_TRANSACTIONS,
        "set pool_mode of the pooler to transaction or session, or connect to the server directly: \
         statement mode has no transactions",
    ),
    message(&["no more connections allowed"], "53300", "raise the pooler's max_client_conn"),
    // What PgBouncer passes on from its server, without the SQLSTATE.
    KnownMessage {
        code: "08P01",
        texts: &["pg_hba.conf"],
        meaning: "28000",
        hint: Some("allow the pooler's connections for this role in the server's pg_hba.conf"),
    },
    synonym(&["database \"", "does not exist"], "3D000"),
    synonym(&["role \"", "does not exist"], "28000"),
    synonym(&["role \"", "is not permitted to log in"], "28000"),
    synonym(&["permission denied for database"], "42501"),
    synonym(&["too many connections for"], "53300"),
    synonym(&["too many clients already"], "53300"),
    synonym(&["remaining connection slots"], "53300"),
    synonym(&["SASL authentication failed"], "28P01"),
    synonym(&["authentication failed"], "28P01"),
    KnownMessage { code: "08P01", texts: &["SASL"], meaning: REJECTED, hint: None },
    KnownMessage { code: "08P01", texts: &["not allowed"], meaning: REJECTED, hint: None },
    // Supavisor.
    message(
        &["Tenant or user not found"],
        "28000",
        "use postgres.PROJECT as the user and the host of the project's region, as Supabase's \
         pooler requires",
    ),
    message(&["max clients"], "53300", POOLER_IS_FULL),
    message(&["MaxClients"], "53300", POOLER_IS_FULL),
    // Neon.
    message(
        &["Endpoint ID is not specified"],
        "28000",
        "use Neon's host name and sslmode=require, or add options=endpoint%3DENDPOINT to the URL",
    ),
    message(&["is insecure"], "28000", WANTS_TLS),
    // Azure.
    message(&["SSL connection is required"], "28000", WANTS_TLS),
    // PostgreSQL's own, of which one SQLSTATE stands for several.
    message(&["no encryption"], "28000", PG_HBA_WANTS_TLS),
    message(&["SSL off"], "28000", PG_HBA_WANTS_TLS),
    message(
        &["no pg_hba.conf entry"],
        "28000",
        "allow this role, database and address in the server's pg_hba.conf",
    ),
    message(
        &["pg_hba.conf rejects"],
        "28000",
        "change the rule in the server's pg_hba.conf that rejects this role, database and address",
    ),
];

pub fn find(code: &str, message: &str) -> Option<&'static KnownMessage> {
    KNOWN.iter().find(|known| {
        (known.code.is_empty() || known.code == code)
            && known.texts.iter().all(|text| message.contains(text))
    })
}
