//! Reading and writing SQL text. Pure, and knows nothing of migrations or connections.

mod lexer;
pub mod quote;
pub mod redact;
mod script;
mod statement_kind;
mod statement_target;
mod tokens;

pub use self::lexer::MARKER;
pub use self::script::{IgnoredMarker, LineColumn, Piece, Script, Statement, offset_of};
pub use self::statement_kind::Kind;
pub use self::statement_target::{Change, Index, Modes, SetStatement, Touch};
