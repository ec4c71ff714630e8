//! Which tokens of a text `ppl` and `kld` score, and in what portions they are fed.

use std::rc::Rc;

use super::feed::{
    begin_of_text, chunks, first_codes, first_predicted_from_codes, longer_than_model, require_room_for_codes,
};
use super::readings::Readings;
use super::settings::{Protocol, Settings};
use super::text::{Text, check_end, default_name};
use crate::model::Subject;
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// Windows over a text and the tokens of them that are scored.
pub struct Plan {
    /// How windows are fed.
    pub protocol: Protocol,
    /// Tokens of a full window.
    pub window: usize,
    /// Tokens of each window that are read but not scored.
    pub burn_in: usize,
    /// Token ids, one window each; the last of a document may be shorter.
    pub windows: Vec<Vec<u32>>,
    /// Tokens fed together, one after the other, over a full window: the same for the reference and the tested cache, and
    /// never past the point where a block leaves the tested one's window.
    pub portions: Vec<usize>,
    /// Tokens that all windows together score.
    pub scored: usize,
    /// Names all that the scores depend on, cache and attention aside.
    pub key: String,
    /// The text.
    pub source: crate::schema::DataSource,
}

impl Plan {
    /// The plan that `settings` ask for with a cache of `quant`, one for `ppl` and `kld`, and for all caches that quantize at the same
    /// places.
    ///
    /// # Errors
    /// When the window does not fit the model, the text cannot be read, nothing would be scored, or no code would be read: says what to
    /// change.
    pub fn of(subject: &Subject, settings: &Settings, quant: &QuantSpec, readings: &mut Readings) -> Result<Rc<Self>> {
        let key = format!("{} {} {}", settings.concerning("ppl"), quant.residual, quant.block_tokens());
        let plan = readings.get(key, || Plan::read(subject, settings, quant))?;
        let longest = plan.windows.iter().map(Vec::len).max().unwrap_or(0);
        let fed = match plan.protocol {
            // The last token of a window predicts nothing.
            Protocol::Streaming => longest.saturating_sub(1),
            // What is fed in one pass reads what was there before it.
            Protocol::TwoPhase => longest.min(plan.window / 2 + 1),
        };
        require_room_for_codes(subject, quant, &format!("windows of {longest} tokens"), fed)?;
        Ok(plan)
    }

    /// Says so where tokens are scored that a cache of `quant` predicts before it has codes.
    pub fn scored_without_codes(&self, quant: &QuantSpec) -> Option<String> {
        let first = first_predicted_from_codes(quant);
        (quant.is_quantized() && self.protocol == Protocol::Streaming && self.burn_in < first).then(|| {
            format!(
                "{} quantizes the first block once {} tokens are held: of what is scored after --ppl-burn-in {}, the tokens before place \
                 {first} of a window are predicted without codes",
                quant.name,
                first_codes(quant),
                self.burn_in
            )
        })
    }

    fn read(subject: &Subject, settings: &Settings, quant: &QuantSpec) -> Result<Self> {
        let (window, burn_in) = extent(subject, settings, quant)?;
        let protocol = settings.ppl_protocol;
        let wanted = if settings.ppl_tokens == 0 { usize::MAX } else { settings.ppl_tokens };
        let begin = begin_of_text(subject)?;
        let room = window - begin.iter().len();
        let stride = match protocol {
            Protocol::Streaming => room,
            Protocol::TwoPhase => room - window / 2,
        };

        // Were every window full, so many would do. Short documents leave windows shorter, so that more is read.
        let mut tokens = wanted.div_ceil(window - burn_in).saturating_mul(window);
        let text = Text::load(settings, subject, tokens)?;
        let cut = |documents: &[Vec<u32>]| {
            let (mut windows, mut scored) = (Vec::new(), 0);
            for document in documents {
                for start in (0..document.len()).step_by(stride) {
                    let end = document.len().min(start + room);
                    let mut ids: Vec<u32> = begin.into_iter().chain(document[start..end].iter().copied()).collect();
                    ids.truncate((wanted - scored).saturating_add(burn_in));
                    if ids.len() <= burn_in {
                        break;
                    }
                    scored += ids.len() - burn_in;
                    windows.push(ids);
                }
            }
            (windows, scored)
        };
        let (windows, scored) = loop {
            let documents = text.tokens(subject, tokens)?;
            let (windows, scored) = cut(&documents);
            if scored == wanted || documents.iter().map(Vec::len).sum::<usize>() < tokens {
                break (windows, scored);
            }
            tokens = tokens.saturating_mul(2);
        };
        if scored == 0 {
            return Err(Error::usage(format!(
                "the text {} is not longer than the {burn_in} tokens of a window that are not scored; lower --ppl-burn-in or \
                 --ppl-window, or give a longer text",
                text.source.name
            )));
        }
        if settings.ppl_tokens > scored {
            tracing::warn!(
                "{} has {scored} tokens to score, not the {} of --ppl-tokens",
                text.source.name,
                settings.ppl_tokens
            );
        }
        tracing::info!("{} of {}: {scored} tokens to score", text.source.name, text.source.sha256);
        let portions = portions(protocol, window, quant);
        let key = format!("{}|{portions:?}|{window}|{burn_in}|{scored}", text.source.sha256);
        Ok(Plan { protocol, window, burn_in, windows, portions, scored, key, source: text.source })
    }

    /// Most tokens fed in one pass.
    pub fn max_chunk(&self) -> usize {
        self.portions.iter().copied().max().unwrap_or(1)
    }

    /// Windows in groups of equal length, of at most `most` each, by index.
    pub fn batches(&self, most: usize) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for (index, window) in self.windows.iter().enumerate() {
            match batches.last_mut() {
                Some(batch) if batch.len() < most.max(1) && self.windows[batch[0]].len() == window.len() => {
                    batch.push(index)
                }
                _ => batches.push(vec![index]),
            }
        }
        batches
    }
}

/// The chunks of a window, which a cache of `quant` is fed; under the two-phase protocol the second half of it is one.
fn portions(protocol: Protocol, window: usize, quant: &QuantSpec) -> Vec<usize> {
    let small = match protocol {
        Protocol::Streaming => window,
        Protocol::TwoPhase => window / 2,
    };
    let (mut portions, mut at) = (Vec::new(), 0);
    while at < small {
        let count = chunks(quant).left(at).min(small - at);
        portions.push(count);
        at += count;
    }
    if at < window {
        portions.push(window - at);
    }
    portions
}

/// Tokens of a window, and how many of them are not scored.
///
/// # Errors
/// When the window does not fit the model, nothing of it would be scored, or the text has no end.
pub fn extent(subject: &Subject, settings: &Settings, quant: &QuantSpec) -> Result<(usize, usize)> {
    let limit = subject.config().max_positions;
    let window = settings.window(limit);
    if window > limit {
        return Err(Error::usage(longer_than_model(&format!("--ppl-window {window}"), limit)));
    }
    check_end(default_name(settings, &subject.model), settings.ppl_tokens)?;
    Ok((window, burn_in(settings, window, quant)?))
}

/// Tokens of a window that are not scored.
///
/// # Errors
/// Where that leaves nothing to score, or a flag asks for what the protocol does not have.
fn burn_in(settings: &Settings, window: usize, quant: &QuantSpec) -> Result<usize> {
    let burn_in = settings.burn_in(window, quant);
    match settings.ppl_protocol {
        Protocol::TwoPhase if settings.ppl_burn_in.is_some() => {
            Err(Error::usage("--ppl-burn-in is for --ppl-protocol streaming; two-phase leaves half a window unscored"))
        }
        Protocol::TwoPhase if window < 4 => Err(Error::usage("--ppl-window must be at least 4 tokens")),
        Protocol::Streaming if burn_in + 1 >= window => {
            // Which may be the default that a plan's caches share.
            Err(Error::usage(format!(
                "a burn-in of {burn_in} tokens leaves no token of a window of {window} to score; by default it is 256, or one more than \
                 the caches of a plan hold when all have quantized a block: give a smaller --ppl-burn-in or --residual-length, or a longer \
                 --ppl-window"
            )))
        }
        _ => Ok(burn_in),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LoadOptions;

    fn plan(lengths: &[usize]) -> Plan {
        Plan {
            protocol: Protocol::Streaming,
            window: 8,
            burn_in: 2,
            windows: lengths.iter().map(|n| vec![0; *n]).collect(),
            portions: vec![8],
            scored: 0,
            key: String::new(),
            source: Default::default(),
        }
    }

    #[test]
    fn only_windows_of_one_length_are_fed_side_by_side() {
        assert_eq!(plan(&[8, 8, 8, 5]).batches(2), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(plan(&[8, 5, 8]).batches(4), [vec![0], vec![1], vec![2]]);
    }

    /// The plan of the built-in model, f32 on the CPU, with settings that `change` sets.
    fn planned(quant: &str, change: &dyn Fn(&mut Settings)) -> Rc<Plan> {
        let mut options = LoadOptions::new("builtin");
        (options.device, options.dtype) = ("cpu".parse().unwrap(), "f32".parse().unwrap());
        let mut settings = Settings { ppl_window: Some(512), ppl_tokens: 600, ..Settings::default() };
        change(&mut settings);
        let subject = Subject::load(&options).unwrap();
        Plan::of(&subject, &settings, &quant.parse().unwrap(), &mut Readings::default()).unwrap()
    }

    #[test]
    fn two_phase_windows_overlap_by_the_half_that_is_not_scored() {
        let plan = planned("none", &|settings| settings.ppl_protocol = Protocol::TwoPhase);
        let windows = &plan.windows;
        assert_eq!((windows.len(), plan.scored), (3, 600));
        for pair in windows.windows(2) {
            assert_eq!(pair[0][256..], pair[1][..256]);
        }
        // Streaming windows have no token in common.
        let streaming = planned("none", &|_| {});
        assert_eq!(streaming.windows[1][..256], windows[2][..256]);
    }

    #[test]
    fn of_short_documents_as_many_are_read_as_the_tokens_to_score_need() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("texts.jsonl");
        std::fs::write(
            &file,
            "{\"text\": \"The miller walked to the river and came back late in the evening.\"}\n".repeat(300),
        )
        .unwrap();
        let plan = planned("none", &|settings| {
            settings.ppl_data = Some(file.to_str().unwrap().into());
            (settings.ppl_burn_in, settings.ppl_tokens) = (Some(10), 500);
        });
        // Were windows full, 502 tokens of each would be scored, so that one is read at first; of these, four of each.
        assert_eq!((plan.scored, plan.windows[0].len()), (500, plan.windows[1].len()));
        assert!(plan.windows[0].len() < 20, "{}", plan.windows[0].len());
    }

    #[test]
    fn scores_of_other_tokens_or_otherwise_fed_have_other_names() {
        let mut keys = vec![
            planned("none", &|_| {}).key.clone(),
            planned("none", &|settings| settings.ppl_window = Some(400)).key.clone(),
            planned("none", &|settings| settings.ppl_burn_in = Some(200)).key.clone(),
            planned("none", &|settings| settings.ppl_tokens = 500).key.clone(),
            planned("none", &|settings| settings.ppl_protocol = Protocol::TwoPhase).key.clone(),
            planned("none", &|settings| settings.seed = 7).key.clone(),
            planned("int4-hqq,residual=100", &|_| {}).key.clone(),
        ];
        // A cache that quantizes at the same places, whatever it makes of them, is fed the same.
        assert_eq!(planned("int2-kivi", &|_| {}).key, keys[0]);
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "{keys:?}");
    }

    #[test]
    fn portions_end_where_a_block_leaves_the_window() {
        let portions = |protocol, window, quant: &str| portions(protocol, window, &quant.parse().unwrap());
        assert_eq!(portions(Protocol::Streaming, 200, "int4-hqq"), [64, 64, 64, 8]);
        assert_eq!(portions(Protocol::Streaming, 300, "int4-hqq,residual=100"), [36, 64, 64, 64, 64, 8]);
        assert_eq!(portions(Protocol::Streaming, 300, "int2-kivi,k-group=128,residual=0"), [64, 64, 64, 64, 44]);
        assert_eq!(portions(Protocol::TwoPhase, 300, "int4-hqq,residual=100"), [36, 64, 50, 150]);
    }
}
