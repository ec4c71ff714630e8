//! `int4-hqq,group=32,keep-layers=0+27` → [`QuantSpec`], and back to its canonical name.

use std::str::FromStr;

use super::presets::{self, PRESETS};
use super::{Direction, Groups, Hadamard, Policy, QuantSpec, Scheme};
use crate::base::number::tokens;
use crate::{Error, Result};

/// Tokens kept in full precision unless a spec or `--residual-length` says otherwise.
pub const DEFAULT_RESIDUAL: usize = 128;

/// Keys an override may have, in the order of canonical names.
const KEYS: [&str; 12] = [
    "group",
    "k-group",
    "v-group",
    "bits",
    "k-bits",
    "v-bits",
    "k",
    "v",
    "hadamard",
    "residual",
    "keep-layers",
    "policy",
];

const BITS: [u8; 3] = [2, 4, 8];
const GROUPS: [usize; 4] = [16, 32, 64, 128];

impl FromStr for QuantSpec {
    type Err = Error;

    /// Parses a `--kv-quant` value.
    ///
    /// # Errors
    /// A usage error that says what is possible: unknown names with the nearest known ones, unknown keys, values not offered.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(str::trim);
        let base = parts.next().unwrap_or_default();
        let preset = presets::find(base).ok_or_else(|| unknown_name(base))?;
        let mut spec = QuantSpec { scheme: preset.scheme, ..QuantSpec::none() };
        let mut seen = Vec::new();
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                Error::usage(format!(
                    "'{text}': an override is written key=value (keys: {}), not '{part}'",
                    KEYS.join(", ")
                ))
            })?;
            if seen.contains(&key) {
                return Err(Error::usage(format!("'{text}': {key} is given twice")));
            }
            seen.push(key);
            spec.set(key, value).map_err(|error| Error::usage(format!("'{text}': {error}")))?;
        }
        spec.name = spec.canonical(base);
        Ok(spec)
    }
}

fn unknown_name(base: &str) -> Error {
    let all: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let nearest = presets::nearest(base);
    let hint = if nearest.is_empty() { ".".into() } else { format!("; did you mean {}?", nearest.join(" or ")) };
    Error::usage(format!("unknown KV quantization '{base}'{hint} There are: {}", all.join(", ")))
}

fn one_of<T: FromStr + PartialEq + ToString>(key: &str, value: &str, offered: &[T]) -> Result<T> {
    let parsed = value.parse().ok().filter(|parsed| offered.contains(parsed));
    parsed.ok_or_else(|| {
        let offered: Vec<String> = offered.iter().map(T::to_string).collect();
        Error::usage(format!("{key}={value} is not offered; {key} is one of {}", offered.join(", ")))
    })
}

impl QuantSpec {
    /// The preset's name that this spec started from: `int4-hqq`.
    pub fn preset(&self) -> &str {
        self.name.split(',').next().unwrap_or_default()
    }

    /// The method's name as result files record it (`hqq`, `quanto`, `kivi`, `fp8`); `None` when nothing is quantized.
    pub fn method(&self) -> Option<&str> {
        match self.scheme {
            Scheme::None => None,
            Scheme::Fp8 => Some("fp8"),
            Scheme::Grouped { .. } => self.preset().split('-').nth(1),
        }
    }

    /// The spec as a part of a file name: `fp16` for the baseline, else the name with dashes and commas as underscores and
    /// without equals signs: `int4_hqq_group32_keep_layers0+27`.
    pub fn label(&self) -> String {
        match self.scheme {
            Scheme::None => "fp16".into(),
            _ => self.name.replace(['-', ','], "_").replace('=', ""),
        }
    }

    /// The same spec with `residual` tokens kept in full precision. The baseline keeps all tokens and stays as it is.
    pub fn with_residual(mut self, residual: usize) -> Self {
        if self.is_quantized() {
            self.residual = residual;
            self.name = self.canonical(self.preset());
        }
        self
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if !KEYS.contains(&key) {
            let nearest = KEYS.iter().max_by(|a, b| strsim::jaro(key, a).total_cmp(&strsim::jaro(key, b)));
            let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
            return Err(Error::usage(format!("unknown override '{key}'{hint} There are: {}", KEYS.join(", "))));
        }
        if !self.is_quantized() {
            return Err(Error::usage("none takes no overrides: nothing is quantized"));
        }
        match key {
            "residual" => {
                self.residual = tokens(value).map_err(|_| {
                    Error::usage(format!("residual={value}: a number of tokens is expected, such as 128 or 1k"))
                })?;
            }
            "keep-layers" => {
                let layers: Result<Vec<usize>, _> = value.split('+').map(str::parse).collect();
                self.keep_layers = layers.map_err(|_| {
                    Error::usage(format!("keep-layers={value}: layer numbers joined by + are expected, such as 0+27"))
                })?;
                self.keep_layers.sort_unstable();
                self.keep_layers.dedup();
            }
            "hadamard" => {
                self.hadamard = Hadamard::named(value).ok_or_else(|| {
                    Error::usage(format!("hadamard={value} is not offered; hadamard is one of k, v, kv"))
                })?;
            }
            "policy" => {
                self.policy = match value {
                    "streaming" => Policy::Streaming,
                    "transformers" => Policy::Transformers,
                    _ => return Err(Error::usage(format!("policy={value} is not offered; streaming is"))),
                };
            }
            _ => return self.set_groups(key, value),
        }
        Ok(())
    }

    fn set_groups(&mut self, key: &str, value: &str) -> Result<()> {
        let Scheme::Grouped { key: k, value: v, .. } = &mut self.scheme else {
            return Err(Error::usage(format!(
                "fp8 has one scale per head and no {key}; it takes hadamard, residual, keep-layers and policy"
            )));
        };
        let (what, sides): (&str, &mut [&mut Groups]) = match key {
            "k" => ("direction", &mut [k]),
            "v" => ("direction", &mut [v]),
            _ => match key.split_once('-') {
                Some(("k", what)) => (what, &mut [k]),
                Some((_, what)) => (what, &mut [v]),
                None => (key, &mut [k, v]),
            },
        };
        for side in sides {
            match what {
                "group" => side.group = one_of(key, value, &GROUPS)?,
                "bits" => side.bits = one_of(key, value, &BITS)?,
                _ => side.direction = one_of(key, value, &[Direction::Channel, Direction::Token])?,
            }
        }
        Ok(())
    }

    /// The shortest name that parses to this spec: only what differs from the preset, in the order of [`KEYS`].
    fn canonical(&self, base: &str) -> String {
        let mut name = base.to_string();
        let mut say = |key: &str, value: String| name += &format!(",{key}={value}");
        if let (Scheme::Grouped { key: k, value: v, .. }, Some(Scheme::Grouped { key: k0, value: v0, .. })) =
            (self.scheme, presets::find(base).map(|preset| preset.scheme))
        {
            both_or_each(&mut say, "group", (k.group, v.group), (k0.group, v0.group));
            both_or_each(&mut say, "bits", (k.bits, v.bits), (k0.bits, v0.bits));
            if k.direction != k0.direction {
                say("k", k.direction.to_string());
            }
            if v.direction != v0.direction {
                say("v", v.direction.to_string());
            }
        }
        if let Some(sides) = self.hadamard.name() {
            say("hadamard", sides.into());
        }
        if self.residual != DEFAULT_RESIDUAL {
            say("residual", self.residual.to_string());
        }
        if !self.keep_layers.is_empty() {
            let layers: Vec<String> = self.keep_layers.iter().map(usize::to_string).collect();
            say("keep-layers", layers.join("+"));
        }
        if self.policy == Policy::Transformers {
            say("policy", "transformers".into());
        }
        name
    }
}

fn both_or_each<T: PartialEq + ToString>(say: &mut impl FnMut(&str, String), key: &str, now: (T, T), preset: (T, T)) {
    let (k_differs, v_differs) = (now.0 != preset.0, now.1 != preset.1);
    if k_differs && v_differs && now.0 == now.1 {
        say(key, now.0.to_string());
        return;
    }
    if k_differs {
        say(&format!("k-{key}"), now.0.to_string());
    }
    if v_differs {
        say(&format!("v-{key}"), now.1.to_string());
    }
}

impl FromStr for Direction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Direction::Channel, Direction::Token].into_iter().find(|direction| direction.name() == text).ok_or(())
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for QuantSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> QuantSpec {
        text.parse().unwrap()
    }

    fn refusal(text: &str) -> String {
        let error = text.parse::<QuantSpec>().unwrap_err();
        assert!(error.is_usage());
        error.to_string()
    }

    #[test]
    fn every_preset_is_its_own_canonical_name() {
        for preset in &PRESETS {
            assert_eq!(spec(preset.name).name, preset.name);
            assert_eq!(spec(preset.name).scheme, preset.scheme);
            assert_eq!(spec(preset.name).residual, DEFAULT_RESIDUAL);
        }
    }

    #[test]
    fn overrides_change_what_they_name_and_nothing_else() {
        let plain = spec("int4-hqq");
        let Scheme::Grouped { key, value, fit } = spec("int4-hqq,k-bits=8,v-group=16,v=token").scheme else { panic!() };
        let Scheme::Grouped { key: key0, value: value0, fit: fit0 } = plain.scheme else { panic!() };
        assert_eq!(key, Groups { bits: 8, ..key0 });
        assert_eq!(value, Groups { group: 16, direction: Direction::Token, ..value0 });
        assert_eq!(fit, fit0);
        let kept = spec("int2-kivi,residual=0,keep-layers=27+0+27");
        assert_eq!((kept.residual, kept.keep_layers), (0, vec![0, 27]));
    }

    #[test]
    fn equal_specs_have_equal_names() {
        assert_eq!(spec("int4-hqq,v-group=32,k-group=32").name, "int4-hqq,group=32");
        assert_eq!(spec("int4-hqq,group=64,residual=128,policy=streaming").name, "int4-hqq");
        assert_eq!(spec("int4-hqq, keep-layers=27+0, group=32").name, "int4-hqq,group=32,keep-layers=0+27");
        assert_eq!(spec("int4-hqq").with_residual(64).name, "int4-hqq,residual=64");
        assert_eq!(spec("int4-hqq,residual=1k").name, "int4-hqq,residual=1024");
        assert_eq!(spec("none").with_residual(64), QuantSpec::none());
        for text in ["int2-hqq-kivi,bits=8,k=token,v=channel,residual=1", "fp8,residual=7,keep-layers=3"] {
            assert_eq!(spec(&spec(text).name), spec(text));
        }
    }

    #[test]
    fn refusals_say_what_is_possible() {
        assert!(refusal("int4-hq").contains("did you mean int4-hqq"));
        assert!(refusal("nonsense!").contains("There are: none, int8-hqq"));
        assert!(refusal("int4-hqq,group=48").contains("16, 32, 64, 128"));
        assert!(refusal("int4-hqq,k-bits=3").contains("2, 4, 8"));
        assert!(refusal("int4-hqq,k=head").contains("channel, token"));
        assert!(refusal("int4-hqq,goup=32").contains("did you mean group?"));
        assert!(refusal("int4-hqq,32").contains("key=value"));
        assert!(refusal("int4-hqq,group=32,group=16").contains("twice"));
        assert!(refusal("none,residual=64").contains("nothing is quantized"));
        assert!(refusal("fp8,group=32").contains("one scale per head"));
        assert!(refusal("int4-hqq,residual=-1").contains("number of tokens"));
        assert!(refusal("int4-hqq,keep-layers=0,27").contains("key=value"));
    }

    #[test]
    fn labels_are_fit_for_file_names() {
        assert_eq!(spec("none").label(), "fp16");
        assert_eq!(spec("int4-hqq-kivi").label(), "int4_hqq_kivi");
        assert_eq!(spec("int4-hqq,group=32,keep-layers=0+27").label(), "int4_hqq_group32_keep_layers0+27");
    }

    #[test]
    fn methods_are_named_as_the_result_files_name_them() {
        let methods: Vec<_> = ["none", "int8-hqq", "int2-hqq-kivi", "int4-quanto", "int4-kivi,group=64", "fp8"]
            .map(|text| spec(text).method().map(str::to_owned))
            .into();
        let expected = [None, Some("hqq"), Some("hqq"), Some("quanto"), Some("kivi"), Some("fp8")];
        assert_eq!(methods, expected.map(|m| m.map(str::to_owned)));
    }
}
