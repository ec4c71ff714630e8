//! What is wrong with a configuration file, told by line and key as the command line tells it by flag.

use crate::base::number::{Lengths, Tokens, lengths, real, tokens, whole};

/// `error`, which reading `text` ended with, in words. What is no TOML at all has no key: there the line is shown as it stands.
pub(super) fn words(error: &toml::de::Error, text: &str) -> String {
    of_key(error, text).unwrap_or_else(|| error.to_string().trim_end().into())
}

fn of_key(error: &toml::de::Error, text: &str) -> Option<String> {
    let (span, message) = (error.span()?, error.message());
    // Only an error that does not have the text ends with its key.
    let mut with_key = error.clone();
    with_key.set_input(None);
    let with_key = with_key.to_string();
    let key = with_key.strip_prefix(message)?.trim().strip_prefix("in `")?.strip_suffix('`')?;
    let line = 1 + text[..span.start].matches('\n').count();
    let value = &text[span];
    // By what serde calls that which it expected.
    let allowed = match message.rsplit_once(", expected ") {
        Some((_, "usize" | "u64")) => whole::<u64>(value).err(),
        Some((_, Tokens::NAME)) => tokens(value.trim_matches(['"', '\''])).err(),
        Some((_, Lengths::NAME)) => lengths(value.trim_matches(['"', '\''])).err(),
        Some((_, "f64")) => real(value).err(),
        Some((_, "a sequence")) => Some(format!("give a list, such as [{value}]")),
        _ => None,
    };
    Some(match allowed {
        Some(allowed) => format!("line {line}: invalid value {value} for {key}: {allowed}"),
        None => format!("line {line}: {key}: {message}"),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Result;
    use crate::session::sweep::Sweep;

    fn read(text: &str) -> Result<Sweep> {
        Sweep::parse(Path::new("sweep.toml"), text)
    }

    #[test]
    fn a_number_that_measures_nothing_is_told_by_its_key() {
        for (text, told) in [
            ("[settings]\nmeasure-runs = 0\n[[matrix]]", "settings.measure-runs must be at least 1"),
            ("[settings]\nneedle-depths = [2]", "settings.needle-depths 2 is not between 0 and 1"),
            ("[[matrix]]\ncontext-lengths = [4000000000]", "matrix.context-lengths 4000000000 is more than 1073741824"),
            ("[[matrix]]\n[[matrix]]\nbatch-sizes = [2, 0]", "matrix.batch-sizes must be at least 1"),
            ("[[matrix]]\noutput-tokens = [0]", "matrix.output-tokens (--decode-tokens) must be at least 1"),
            (
                "[[matrix]]\n[model.builtin]\ncontext-lengths = [0]",
                "model.\"builtin\".context-lengths must be at least 1",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), format!("sweep.toml: {told}"));
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_told_by_line_and_key_as_a_flag_is_by_its_name() {
        const WHOLE: &str = "give a whole number, such as 4096";
        for (text, told) in [
            (
                "[settings]\nseed = 1\ncontext-lengths = [64, '4x']",
                ("line 3", "'4x' for settings.context-lengths", WHOLE),
            ),
            ("[settings]\nppl-tokens = 1.5", ("line 2", "1.5 for settings.ppl-tokens", WHOLE)),
            ("[settings]\nppl-window = -1", ("line 2", "-1 for settings.ppl-window", "such as 4096 or 4k")),
            ("[settings]\nfollow-up-tokens = '1k..2k'", ("line 2", "'1k..2k' for settings.follow-up-tokens", WHOLE)),
            ("[settings]\nseed = 99999999999999999999", ("line 2", "settings.seed", "the number is too large")),
            ("[settings]\nmmlu-shots = [5]", ("line 2", "[5] for settings.mmlu-shots", WHOLE)),
            ("[settings]\nneedle-depths = ['half']", ("line 2", "'half' for settings.needle-depths", "such as 0.5")),
            ("[settings]\nenergy-seconds = true", ("line 2", "true for settings.energy-seconds", "such as 0.5")),
            ("[[matrix]]\nbatch-sizes = 4", ("line 2", "4 for matrix.batch-sizes", "give a list, such as [4]")),
            (
                "[[matrix]]\nexclude = [{ output-tokens = ['x'] }]",
                ("line 2", "'x' for matrix.exclude.output-tokens", WHOLE),
            ),
            (
                "[[matrix]]\ncontext-lengths = ['1k..3k']",
                ("line 2", "'1k..3k' for matrix.context-lengths", "doubling 1k does not come to 3k"),
            ),
            (
                "[settings]\ncontext-lengths = [1.5]",
                ("line 2", "1.5 for settings.context-lengths", "such as 4096 or 4k"),
            ),
            ("[settings]\ncontext-lengths = [-1]", ("line 2", "-1 for settings.context-lengths", "such as 4096 or 4k")),
            ("[[matrix]]\ncontext-lengths = '4k'", ("line 2", "matrix.context-lengths", "give a list, such as ['4k']")),
            ("[model.a]\ncontext-lengths = ['x']", ("line 2", "'x' for model.a.context-lengths", WHOLE)),
            (
                "[settings]\nppl-protocol = 'x'",
                ("line 2", "settings.ppl-protocol", "expected `streaming` or `two-phase`"),
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            let (line, key, allowed) = told;
            let all =
                error.starts_with(&format!("sweep.toml: {line}: ")) && error.contains(key) && error.contains(allowed);
            assert!(all, "{error}");
        }
        let error = read("[[matrix]]\nmodels = []\ncontexts = [1]").unwrap_err().to_string();
        assert!(error.starts_with("sweep.toml: line 3: matrix: unknown field `contexts`"), "{error}");
        // What is no TOML is shown as it stands.
        assert!(read("[settings\nseed = 1").unwrap_err().to_string().contains("[settings\n"));
    }
}
