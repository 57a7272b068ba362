//! What a database says of the migrations that are checked. Only reads.

use std::collections::HashSet;

use crate::apply::error::ApplyError;
use crate::apply::event::Event;
use crate::apply::load::{self, Loaded};
use crate::apply::sizes;
use crate::cli::config::Options;
use crate::effects::{Relation, Sizes};
use crate::history::{matching, plan};
use crate::migrations::migration::MigrationSet;
use crate::postgres::session::Session;
use crate::process::signals::StopFlag;

pub struct Database {
    session: Session,
    /// The names of the migrations that are pending there.
    pub pending: HashSet<String>,
}

impl Database {
    pub fn ask(
        set: &MigrationSet,
        options: &Options,
        stop: &StopFlag,
        emit: &mut dyn FnMut(Event),
    ) -> Result<Database, ApplyError> {
        let Loaded { session, history, .. } = load::load(options, None, stop, emit)?;
        let matches = matching::match_rows(set, &history.rows);
        let pending = plan::pending(set, &history.rows, &matches).into_iter();
        let pending = pending.filter_map(|pending| Some(set.get(pending.index)?.name.clone()));
        Ok(Database { session, pending: pending.collect() })
    }

    /// The sizes of these tables, as far as they exist.
    pub fn sizes(
        &self,
        relations: &[&Relation],
        options: &Options,
        stop: &StopFlag,
    ) -> Result<Sizes, ApplyError> {
        sizes::look(relations, &self.session, options, stop)
    }
}
