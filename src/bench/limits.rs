//! What settings may be: which of them measure nothing, never end, or cannot be recorded.

use super::settings::Settings;
use crate::{Error, Result};

/// The most tokens or sequences that a setting may ask for: beyond any machine, and far from where sizes overflow.
pub const MOST: usize = 1 << 30;
/// The most needles at one place, or runs of one measurement: beyond what anyone waits for, within what memory holds.
const MOST_REPEATS: usize = 10_000;
/// The longest window of energy, seconds: a day.
const MOST_SECONDS: f64 = 86_400.0;

/// How errors name `decode-tokens`: by both flags that set it, since either may have been typed.
pub const OUTPUT_TOKENS: &str = "output-tokens (--decode-tokens)";

impl Settings {
    /// Refuses settings that cannot measure anything, or cannot be recorded; `profile` says whether the profile is measured with them, which
    /// alone reads follow-up prompts.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first such setting, as on the command line.
    pub fn check(&self, profile: bool) -> Result<()> {
        if let Some(fault) = self.fault() {
            return Err(Error::usage(format!("--{fault}")));
        }
        // Of one run: the list of a matrix may replace the output length of the settings.
        match self.follow_up_tokens {
            Some(tokens) if profile && tokens > self.decode_tokens => Err(Error::usage(format!(
                "--follow-up-tokens {tokens} is more than --{OUTPUT_TOKENS} {0}: a follow-up prompt is read where a cache keeps room for \
                 its output; give at most {0} follow-up tokens, or at least {tokens} output tokens",
                self.decode_tokens
            ))),
            _ => Ok(()),
        }
    }

    /// The first setting that cannot measure anything, or cannot be recorded, by its key, with what is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let least = |list: &[usize]| list.iter().copied().min();
        let positive = [
            ("measure-runs", Some(self.measure_runs)),
            (OUTPUT_TOKENS, Some(self.decode_tokens)),
            ("follow-up-tokens", self.follow_up_tokens),
            ("prefill-chunk", self.prefill_chunk),
            ("max-new-tokens", Some(self.max_new_tokens)),
            ("batch-size", Some(self.batch_size)),
            ("batch-sizes", least(&self.batch_sizes).or(Some(0))),
            ("context-lengths", least(&self.context_lengths)),
            ("ppl-window", self.ppl_window),
            ("ppl-burn-in", self.ppl_burn_in),
            ("ppl-batch", self.ppl_batch),
            ("needle-trials", Some(self.needle_trials)),
            ("needle-depths", Some(self.needle_depths.len())),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == Some(0)) {
            return Some(format!("{name} must be at least 1"));
        }
        let most = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
        let bounded = [
            ("context-lengths", most(&self.context_lengths)),
            ("batch-sizes", most(&self.batch_sizes)),
            (OUTPUT_TOKENS, self.decode_tokens),
            ("follow-up-tokens", self.follow_up_tokens.unwrap_or(0)),
            ("prefill-chunk", self.prefill_chunk.unwrap_or(0)),
            ("ppl-window", self.ppl_window.unwrap_or(0)),
            ("ppl-burn-in", self.ppl_burn_in.unwrap_or(0)),
            ("ppl-tokens", self.ppl_tokens),
            ("ppl-batch", self.ppl_batch.unwrap_or(0)),
            ("mmlu-questions", self.mmlu_questions),
            ("mmlu-shots", self.mmlu_shots),
            ("math-problems", self.math_problems),
            ("max-new-tokens", self.max_new_tokens),
            ("batch-size", self.batch_size),
        ];
        let repeated = [
            ("warmup-runs", self.warmup_runs),
            ("measure-runs", self.measure_runs),
            ("needle-trials", self.needle_trials),
        ];
        if let Some((name, value)) = repeated.iter().find(|(_, value)| *value > MOST_REPEATS) {
            return Some(format!("{name} {value} is more than {MOST_REPEATS}"));
        }
        if let Some((name, value)) = bounded.iter().find(|(_, value)| *value > MOST) {
            return Some(format!("{name} {value} is more than {MOST}"));
        }
        // Result files are JSON, and a patch reads there where the data is.
        if let Some(path) = self.data.as_ref().filter(|path| path.to_str().is_none()) {
            let path = path.display();
            return Some(format!(
                "data {path}: the name is not UTF-8, so that no result file can record it; rename it, or give a link to it"
            ));
        }
        let seconds = self.energy_seconds;
        if seconds.is_nan() || seconds <= 0.0 || seconds > MOST_SECONDS {
            return Some(format!("energy-seconds {seconds} must be more than 0, and no more than {MOST_SECONDS}"));
        }
        let depth = self.needle_depths.iter().find(|depth| !(0.0..=1.0).contains(*depth))?;
        Some(format!("needle-depths {depth} is not between 0 and 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_measure_nothing_or_without_an_end_is_refused_by_its_flag() {
        let check = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check(true).unwrap_err().to_string()
        };
        assert!(check(|s| s.ppl_burn_in = Some(0)).contains("--ppl-burn-in must be at least 1"));
        assert!(check(|s| s.measure_runs = 1_000_000_000).contains("--measure-runs 1000000000 is more than"));
        assert!(check(|s| s.follow_up_tokens = Some(0)).contains("--follow-up-tokens must be at least 1"));
        let told = check(|s| (s.follow_up_tokens, s.decode_tokens) = (Some(65), 64));
        assert!(told.starts_with("--follow-up-tokens 65 is more than --output-tokens (--decode-tokens) 64"), "{told}");
        assert!(told.ends_with("give at most 64 follow-up tokens, or at least 65 output tokens"), "{told}");
        let unread = Settings { follow_up_tokens: Some(65), decode_tokens: 64, ..Settings::default() };
        assert!(unread.check(false).is_ok(), "without the profile there is no such prompt");
        assert!(check(|s| s.warmup_runs = 1_000_000_000).contains("--warmup-runs"));
        assert!(check(|s| s.energy_seconds = f64::INFINITY).contains("--energy-seconds inf must be"));
        assert!(check(|s| s.energy_seconds = f64::INFINITY).contains("no more than 86400"));
    }

    #[cfg(unix)]
    #[test]
    fn data_whose_name_no_result_file_can_record_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let name = std::ffi::OsString::from_vec(b"texts-\xff".into());
        let told = Settings { data: Some(name.into()), ..Settings::default() }.check(true).unwrap_err().to_string();
        assert!(told.contains("--data texts-") && told.contains("is not UTF-8"), "{told}");
    }
}
