//! Kernel parameters: joined in the order the kernel reads them, with `init=` and the ` -- `
//! separator in their places. A parameter that occurs twice counts where it comes last.

use super::DefaultParam;

/// Separates kernel parameters from the arguments of init.
const SEPARATOR: &str = "--";

/// A character that no command line may hold, with its position in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadCharacter {
    /// Where it is.
    pub(super) position: usize,
    /// What it is.
    pub(super) character: char,
}

/// Checks that `text` has no control characters: the kernel would cut it at a NUL, and a line
/// break in a parameter is always a mistake by the time a command line is built.
pub(super) fn check(text: &str) -> Result<(), BadCharacter> {
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((position, character)) => Err(BadCharacter {
            position,
            character,
        }),
        None => Ok(()),
    }
}

/// The text of a parameter file on one line.
pub(super) fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// Adds parameters to a command line: at its end, but before ` -- `, after which everything is
/// handed to init.
pub fn insert<S: AsRef<str>>(cmdline: &str, extra: impl IntoIterator<Item = S>) -> String {
    let extra: Vec<S> = extra.into_iter().collect();
    let all = words(cmdline);
    let split = all
        .iter()
        .position(|word| *word == SEPARATOR)
        .unwrap_or(all.len());
    let (kernel, init) = all.split_at_checked(split).unwrap_or((&all, &[]));
    let added = extra.iter().map(|s| s.as_ref().trim());
    let parts: Vec<&str> = kernel
        .iter()
        .copied()
        .chain(added.filter(|s| !s.is_empty()))
        .chain(init.iter().copied())
        .collect();
    parts.join(" ")
}

/// Adds those of `defaults` that the command line does not speak against.
pub(super) fn with_defaults(cmdline: &str, defaults: &[DefaultParam]) -> String {
    let set: Vec<&str> = words(cmdline)
        .into_iter()
        .take_while(|word| *word != SEPARATOR)
        .map(name)
        .collect();
    let missing = defaults.iter().filter(|default| {
        let mut against = default.unless.iter().map(String::as_str);
        !set.contains(&name(&default.text)) && !against.any(|name| set.contains(&name))
    });
    insert(cmdline, missing.map(|default| &default.text))
}

fn name(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

/// Sets `init=`, dropping any that is there: the stage-1 scripts of some systems read the first
/// one, the kernel the last.
pub(super) fn with_init(cmdline: &str, init: &str) -> String {
    let all = words(cmdline);
    let mut kernel_part = true;
    let kept: Vec<&str> = all
        .into_iter()
        .filter(|word| {
            kernel_part &= *word != SEPARATOR;
            !(kernel_part && word.starts_with("init="))
        })
        .collect();
    insert(&kept.join(" "), [format!("init={init}")])
}

/// Splits at spaces outside double quotes, as the kernel does.
fn words(cmdline: &str) -> Vec<&str> {
    let mut quoted = false;
    let at_space = |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_whitespace()
    };
    cmdline.split(at_space).filter(|w| !w.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fill_in_only_what_nobody_set() {
        let defaults = ["console=ttyS0".into(), "panic=-1".into()];
        assert_eq!(
            with_defaults("quiet panic=10 -- console=x", &defaults),
            "quiet panic=10 console=ttyS0 -- console=x"
        );
    }

    #[test]
    fn a_default_gives_way_to_what_speaks_against_it() {
        let quiet = DefaultParam {
            text: "quiet".to_owned(),
            unless: vec!["loglevel".to_owned(), "debug".to_owned()],
        };
        let defaults = [quiet];
        assert_eq!(with_defaults("ro", &defaults), "ro quiet");
        assert_eq!(with_defaults("loglevel=7", &defaults), "loglevel=7");
        assert_eq!(with_defaults("debug", &defaults), "debug");
        assert_eq!(with_defaults("ro -- debug", &defaults), "ro quiet -- debug");
    }

    #[test]
    fn inserted_parameters_stay_before_the_arguments_of_init() {
        assert_eq!(
            insert("quiet -- single", ["panic=-1"]),
            "quiet panic=-1 -- single"
        );
        assert_eq!(insert("", ["a", " ", "b c"]), "a b c");
        assert_eq!(insert("quiet", Vec::<String>::new()), "quiet");
    }

    #[test]
    fn quoted_separator_is_part_of_a_parameter() {
        assert_eq!(insert("x=\"a -- b\"", ["y"]), "x=\"a -- b\" y");
    }

    #[test]
    fn init_replaces_what_was_there_but_not_its_arguments() {
        assert_eq!(
            with_init("init=/a quiet -- init=/b", "/sbin/init"),
            "quiet init=/sbin/init -- init=/b"
        );
    }

    #[test]
    fn parameter_file_becomes_one_line() {
        assert_eq!(
            one_line("quiet\n\n  root=/dev/vda \r\n"),
            "quiet root=/dev/vda"
        );
    }

    #[test]
    fn control_characters_are_found() {
        assert_eq!(check("a b=\"c\""), Ok(()));
        let bad = check("a\0b").unwrap_err();
        assert_eq!((bad.position, bad.character), (1, '\0'));
        assert!(check("a\nb").is_err());
    }
}
