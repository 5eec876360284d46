//! Counting what passed and failed.

use std::fmt;

/// What passed and what failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// Counts the step called `name`.
    pub fn step(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed = self.passed.saturating_add(1);
        } else {
            self.fail(name);
        }
    }

    /// Counts a failure of `name`.
    pub fn fail(&mut self, name: &str) {
        self.failed = self.failed.saturating_add(1);
        self.failures.push(name.to_owned());
    }

    /// Counts the tests of a test program called `name` by what it printed, and its exit status: a
    /// program that fails without a failed test (it crashed, or its end is missing) is a failure.
    pub fn tests(&mut self, name: &str, printed: &str, succeeded: bool) {
        let mut failed = 0_u64;
        for line in printed
            .lines()
            .filter_map(|line| line.trim().strip_prefix("test result: "))
        {
            self.passed = self.passed.saturating_add(counted(line, "passed"));
            failed = failed.saturating_add(counted(line, "failed"));
        }
        for line in printed.lines().map(str::trim) {
            if let Some(test) = line
                .strip_prefix("test ")
                .and_then(|l| l.strip_suffix(" ... FAILED"))
            {
                self.failures.push(format!("{name}: {test}"));
            }
        }
        self.failed = self.failed.saturating_add(failed);
        if !succeeded && failed == 0 {
            self.fail(name);
        }
    }

    /// True when nothing failed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed == 0
    }

    /// What failed, by name.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The number before `word` in `ok. 5 passed; 0 failed; …`.
fn counted(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split_whitespace().collect();
    words
        .windows(2)
        .find_map(|pair| match pair {
            [number, name] if name.trim_end_matches(';') == word => number.parse().ok(),
            _ => None,
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let mut tally = Tally::default();
        let printed = "test a ... ok\ntest result: ok. 5 passed; 0 failed; 1 ignored; 0 measured\n\
                       test b::c ... FAILED\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        tally.tests("unit", printed, false);
        assert_eq!(tally.to_string(), "7 passed, 1 failed");
        assert_eq!(tally.failures(), ["unit: b::c"]);
    }

    #[test]
    fn crashed_program_is_a_failure() {
        let mut tally = Tally::default();
        tally.tests("boot", "running 3 tests\n", false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed");
        assert!(!tally.is_clean());
    }
}
