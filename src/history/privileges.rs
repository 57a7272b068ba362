//! The privileges that applying migrations needs, and the statements that grant them.

use crate::history::progress;
use crate::history::table::{Table, TableVersion};
use crate::postgres::result::ResultRow;
use crate::sql::quote::{self, EQ};

impl Table {
    /// Reads what else an INSERT needs: USAGE on the sequences in the default of `id` (an identity
    /// column needs none), and a policy if row security is active.
    pub fn missing_privileges_sql(&self) -> String {
        let table = quote::literal(&self.qualified());
        format!(
            "select pg_catalog.string_agg(distinct pg_catalog.format('%I.%I', place.nspname, \
             sequence.relname), ', '), pg_catalog.row_security_active({table}) \
             from pg_catalog.pg_attribute \
             join pg_catalog.pg_attrdef on adrelid {EQ} attrelid and adnum {EQ} attnum \
             join pg_catalog.pg_depend on pg_depend.objid {EQ} pg_attrdef.oid \
             and classid {EQ} 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
             and refclassid {EQ} 'pg_catalog.pg_class'::pg_catalog.regclass \
             join pg_catalog.pg_class sequence on sequence.oid {EQ} refobjid and relkind {EQ} 'S' \
             join pg_catalog.pg_namespace place on place.oid {EQ} sequence.relnamespace \
             where attname {EQ} 'id' and attrelid {EQ} {table}::pg_catalog.regclass"
        )
    }

    /// The statements that let this role apply migrations: `upgrade` is what the table needs first,
    /// `missing` the answer to [`Table::missing_privileges_sql`], if there is one.
    pub fn grants_sql(
        &self,
        version: TableVersion,
        upgrade: &[String],
        missing: &[Option<String>],
        role: &str,
    ) -> Vec<String> {
        let (schema, grantee) = (quote::ident(self.schema()), quote::ident(role));
        let create = format!("grant usage, create on schema {schema} to {grantee};");
        match version {
            // Not `authorization`: that takes a superuser, or a member of the role.
            TableVersion::NoSchema => vec![format!("create schema {schema};"), create],
            TableVersion::NoTable => vec![create],
            TableVersion::V0 | TableVersion::V1 => {
                let mut statements: Vec<String> =
                    upgrade.iter().map(|sql| format!("{};", quote::readable(sql))).collect();
                statements.extend(self.read_grants_sql(role));
                statements.push(format!("grant insert on {} to {grantee};", self.qualified()));
                let missing = ResultRow::from(missing);
                if let Some(sequences) = missing.at(0) {
                    statements.push(format!("grant usage on sequence {sequences} to {grantee};"));
                }
                if missing.at(1) == Some("t") {
                    statements.push(format!(
                        "create policy {grantee} on {} to {grantee} using (true) with check (true);",
                        self.qualified()
                    ));
                }
                statements
            }
        }
    }

    /// The statement that lets this role run [`Table::lock_sql`].
    pub fn lock_grant_sql(&self, role: &str) -> String {
        format!("grant update on {} to {};", self.qualified(), quote::ident(role))
    }

    /// The statements that let this role read the history.
    pub fn read_grants_sql(&self, role: &str) -> Vec<String> {
        let role = quote::ident(role);
        vec![
            format!("grant usage on schema {} to {role};", quote::ident(self.schema())),
            format!("grant select on {} to {role};", self.qualified()),
        ]
    }

    /// The statements that let this role keep the progress of migrations, in a table that may exist.
    pub fn progress_grants_sql(&self, exists: bool, role: &str) -> Vec<String> {
        let (schema, role) = (quote::ident(self.schema()), quote::ident(role));
        let mut statements = vec![format!("grant usage, create on schema {schema} to {role};")];
        if exists {
            let table = progress::qualified(self);
            let all = "select, insert, update, delete";
            statements.push(format!("grant {all} on {table} to {role};"));
        }
        statements
    }
}
