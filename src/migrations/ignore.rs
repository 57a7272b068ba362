//! What a file has `check` ignore, and directives that cannot be followed. Pure.

use std::fmt;

use crate::migrations::rule::{Rule, Severity};
use crate::sql::{Directive, NearestDirective, Script};

/// The rules that a file ignores, each with the index of a statement; `None` stands for the file as a whole.
/// A directive holds for the statement that it is before or in. Before the first one, it also holds for the
/// file.
pub fn ignores(script: &Script<'_>) -> Vec<(Rule, Option<usize>)> {
    let first = script.statements().first().map_or(usize::MAX, |first| first.start);
    let of_lines = ignored_rules(script).into_iter().flat_map(|(offset, rule)| {
        let of_file = (offset < first).then_some((rule, None));
        [(rule, script.statement_at(offset))].into_iter().chain(of_file)
    });
    let statements = script.statements().len();
    let of_file = ignored_in_file(script)
        .into_iter()
        .flat_map(|rule| (0..statements).map(move |statement| (rule, Some(statement))));
    of_lines.chain(of_file).collect()
}

/// The rules that a file ignores, each with the byte offset of the directive or of squawk's comment.
fn ignored_rules(script: &Script<'_>) -> Vec<(usize, Rule)> {
    let ours = script.directives().iter().flat_map(|(offset, directive)| {
        let rules = match directive {
            Directive::Ignore { rule, .. } => ignorable(rule),
            Directive::NoTransaction | Directive::Unknown(_) => Vec::new(),
        };
        rules.into_iter().map(|rule| (*offset, rule))
    });
    let squawk = script.comment_lines().flat_map(|(offset, comment)| {
        squawk_rules(comment, "squawk-ignore").into_iter().map(move |rule| (offset, rule))
    });
    ours.chain(squawk).collect()
}

/// The rules that a comment of squawk's ignores in the whole file.
fn ignored_in_file(script: &Script<'_>) -> Vec<Rule> {
    let comments = script.comment_lines();
    comments.flat_map(|(_, comment)| squawk_rules(comment, "squawk-ignore-file")).collect()
}

/// The rules behind these words in a comment, or all that squawk has too. It takes names apart at commas,
/// and so what is none of a rule here is passed over.
fn squawk_rules(comment: &str, words: &str) -> Vec<Rule> {
    let content = comment.strip_prefix("--").unwrap_or_default().trim();
    let Some(names) = content.strip_prefix(words) else { return Vec::new() };
    if names.trim().is_empty() {
        return Rule::of_squawk_all().collect();
    }
    if !names.starts_with([' ', '\t']) {
        return Vec::new();
    }
    names.split(',').flat_map(|name| Rule::of_squawk(name.trim())).copied().collect()
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
        Directive::Ignore { rule, .. } if !ignorable(rule).is_empty() => None,
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

/// The rules that a name in a directive stands for: one of ours, or those of a rule of squawk's.
fn ignorable(name: &str) -> Vec<Rule> {
    let ours = Rule::named(name).filter(|rule| rule.severity() != Severity::Error);
    ours.into_iter().chain(Rule::of_squawk(name).iter().copied()).collect()
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
    fn the_names_and_the_comments_of_squawk_count() {
        let ignored = |sql: &str| -> Vec<Rule> {
            ignored_rules(&Script::parse(sql)).into_iter().map(|(_, rule)| rule).collect()
        };
        let rules = [Rule::BreaksOldVersion, Rule::RequiredColumn];
        assert_eq!(ignored("-- squawk-ignore ban-drop-column, adding-required-field"), rules);
        assert_eq!(ignored("-- squawk-ignore prefer-text-field"), []);
        assert_eq!(ignored("-- squawk-ignore-file ban-drop-column"), []);
        assert!(ignored("-- squawk-ignore\nselect 1").contains(&Rule::IndexLocksWrites));
        let file = Script::parse("select 1;\n-- squawk-ignore-file ban-drop-column");
        assert_eq!(ignored_in_file(&file), [Rule::BreaksOldVersion]);
        let ours = "-- premigrate: ignore ban-drop-column because no version reads it";
        assert_eq!(ignored(ours), [Rule::BreaksOldVersion]);
        assert_eq!(problem_in(ours), None);
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
