//! Reading and writing SQL text. Pure, and knows nothing of migrations or connections.
//!
//! - `lexer` and `tokens` read text; `script` splits it into statements.
//! - `settings`: what a statement sets for its session.
//! - `statement_kind`: what a statement needs to run. `statement_target`: what it is about.
//! - `do_block`: the statements inside a `DO`.
//! - `transactional`: what a transaction can hold and undo of a statement.
//! - `directive`: comments for premigrate. `enum_value`: where a new value of an enum may be used.
//! - `name`: where a name stands in a statement. `invisible`: characters that cannot be seen.
//! - `conflict`: conflict markers of git. `lock_mode`: the modes of table locks.
//! - `quote` writes names and values; `redact` masks secrets.

pub mod conflict;
mod directive;
mod do_block;
mod enum_value;
pub mod invisible;
mod lexer;
mod lock_mode;
pub mod name;
pub mod quote;
pub mod redact;
mod script;
pub mod settings;
mod statement_kind;
mod statement_target;
mod tokens;
mod transactional;

pub use self::directive::{Directive, NearestDirective, UnknownDirective};
pub use self::enum_value::{NewValue, NewValues};
pub use self::lexer::MARKER;
pub use self::lock_mode::{LockMode, Queue};
pub use self::script::{
    IgnoredMarker, LineColumn, Piece, Positions, Script, Statement, Statements, offset_of,
};
pub use self::settings::PathChange;
pub use self::statement_kind::Kind;
pub use self::statement_target::{Change, Index, Modes, Touch};
pub use self::tokens::has_at_most;
pub use self::transactional::TableUse;
