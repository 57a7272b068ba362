//! What a file has `check` ignore, and directives that cannot be followed. Pure.

use std::fmt;

use crate::migrations::rule::{Rule, Severity};
use crate::sql::{Directive, NearestDirective, Script};

/// The rules that a file ignores, each with the byte offset of the directive.
pub fn ignored_rules(script: &Script<'_>) -> Vec<(usize, Rule)> {
    let rules = script.directives().iter().filter_map(|(offset, directive)| match directive {
        Directive::Ignore { rule, .. } => Some((*offset, ignorable(rule)?)),
        Directive::NoTransaction | Directive::Unknown(_) => None,
    });
    rules.collect()
}

/// A directive that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectiveProblem {
    /// The comment is not understood.
    Unknown { comment: String, nearest: Option<NearestDirective> },
    /// The comment ignores an error.
    IgnoresError { comment: String, rule: Rule },
}

/// The directives that cannot be followed, each with its byte offset.
pub fn problems(script: &Script<'_>) -> impl Iterator<Item = (usize, DirectiveProblem)> {
    script
        .directives()
        .iter()
        .filter_map(|(offset, directive)| Some((*offset, problem(directive)?)))
}

fn problem(directive: &Directive) -> Option<DirectiveProblem> {
    match directive {
        Directive::NoTransaction => None,
        Directive::Ignore { rule, .. } if ignorable(rule).is_some() => None,
        Directive::Ignore { rule, comment } => Some(match Rule::named(rule) {
            Some(rule) => DirectiveProblem::IgnoresError { comment: comment.clone(), rule },
            None => DirectiveProblem::Unknown {
                comment: comment.clone(),
                nearest: Some(NearestDirective::Ignore { rule: rule.clone() }),
            },
        }),
        Directive::Unknown(unknown) => Some(DirectiveProblem::Unknown {
            comment: unknown.comment.clone(),
            nearest: unknown.nearest.clone(),
        }),
    }
}

fn ignorable(name: &str) -> Option<Rule> {
    Rule::named(name).filter(|rule| rule.severity() == Severity::Warning)
}

/// Read after "contains".
impl fmt::Display for DirectiveProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NO_TRANSACTION: &str = "`-- premigrate: no-transaction`";
        match self {
            DirectiveProblem::IgnoresError { comment, rule } => {
                write!(f, "`{comment}`, but {rule} is an error, which cannot be ignored; remove it")
            }
            DirectiveProblem::Unknown { comment, nearest } => {
                write!(f, "`{comment}`, which is not understood; write ")?;
                match nearest {
                    None => write!(f, "{NO_TRANSACTION} or {}", ignore_line(None))?,
                    Some(NearestDirective::NoTransaction) => f.write_str(NO_TRANSACTION)?,
                    Some(NearestDirective::Ignore { rule }) => {
                        f.write_str(&ignore_line(Rule::nearest_warning(rule)))?;
                    }
                }
                f.write_str(" on a line of its own, or change how the comment begins")
            }
        }
    }
}

fn ignore_line(rule: Option<Rule>) -> String {
    let rule = rule.map_or("RULE", Rule::name);
    format!("`-- premigrate: ignore {rule} because REASON`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_in(sql: &str) -> Option<String> {
        let script = Script::parse(sql);
        let mut problems = problems(&script);
        let (_, problem) = problems.next()?;
        assert_eq!(problems.next(), None, "{sql}");
        Some(problem.to_string())
    }

    #[test]
    fn a_rule_is_ignored_for_a_reason() {
        for sql in [
            "-- premigrate: ignore split because it must",
            "select 1;\n  --premigrate:  ignore  split  because  it must \nselect 2",
        ] {
            let rules = ignored_rules(&Script::parse(sql));
            assert_eq!(rules.iter().map(|(_, rule)| *rule).collect::<Vec<_>>(), [Rule::Split]);
            assert_eq!(problem_in(sql), None, "{sql}");
        }
        assert_eq!(ignored_rules(&Script::parse("-- premigrate ignores split because")), []);
    }

    #[test]
    fn what_ignores_nothing_is_a_problem_with_the_nearest_right_line() {
        let right = "`-- premigrate: ignore split because REASON`";
        for (sql, cure) in [
            ("-- premigrate: ignore split", right),
            ("-- premigrate: ignore split because", right),
            ("-- premigrate: ignore split because ", right),
            ("-- premigrate: ignore spilt because of steps", right),
            ("-- premigrate: ignore Split because of steps", right),
            ("-- premigrate: ignore split, bom because of steps", right),
            ("-- premigrate: Ignored split because of steps", right),
            ("-- premigrate ignore split because of steps", right),
            ("-- PREMIGRATE: ignore split because of steps", right),
            ("select 1; -- premigrate: ignore split because of steps", right),
            ("/* premigrate: ignore split because of steps */", right),
            ("-- premigrate: ignore", "`-- premigrate: ignore RULE because REASON`"),
            (
                "-- premigrate: ignore because of steps",
                "`-- premigrate: ignore RULE because REASON`",
            ),
            ("-- premigrate: ignore x because y", "`-- premigrate: ignore RULE because REASON`"),
            ("-- premigrate: no tx", "`-- premigrate: no-transaction` on"),
            (
                "-- premigrate: disable split",
                "`-- premigrate: no-transaction` or `-- premigrate: ignore RULE",
            ),
        ] {
            let problem = problem_in(sql).unwrap_or_else(|| panic!("{sql}"));
            assert!(problem.contains(&format!("; write {cure}")), "{sql}: {problem}");
            assert_eq!(ignored_rules(&Script::parse(sql)), [], "{sql}");
        }
    }

    #[test]
    fn an_error_cannot_be_ignored() {
        let line = "-- premigrate: ignore rolls-back because I want to";
        assert_eq!(
            problem_in(line).unwrap(),
            format!("`{line}`, but rolls-back is an error, which cannot be ignored; remove it")
        );
    }
}
