//! SentencePiece's BPE kind, as Llama 2 and Mistral use it, in terms of the `tokenizers` crate.
//!
//! SentencePiece joins, as long as it can, the adjacent pair whose joined piece has the best score. That is a BPE whose
//! merges are all ways to split a piece into two pieces, ordered by the piece's score.

use std::collections::HashSet;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{AddedToken, Tokenizer};

/// What stands for a space inside pieces.
const SPACE: &str = "\u{2581}";

/// What a piece is for; the values are those of SentencePiece and GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Text.
    Normal,
    /// Stands for what cannot be spelled.
    Unknown,
    /// Marks structure, never text: BOS, EOS.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Reserved.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

/// One entry of the vocabulary; its id is its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Text, with ▁ for spaces.
    pub text: String,
    /// Higher is joined first.
    pub score: f32,
    /// What it is for.
    pub kind: PieceKind,
}

/// What surrounds the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether a text is read as if a space preceded it.
    pub space_prefix: bool,
    /// Id put before a text.
    pub bos: Option<u32>,
    /// Id put after a text.
    pub eos: Option<u32>,
}

/// A tokenizer equivalent to the SentencePiece model with these pieces.
///
/// # Errors
/// When an id in `options` has no piece.
pub fn build(pieces: &[Piece], options: &Options) -> tokenizers::Result<Tokenizer> {
    let unknown = pieces.iter().find(|p| p.kind == PieceKind::Unknown).map(|p| p.text.clone());
    let vocab = pieces
        .iter()
        .enumerate()
        .map(|(id, p)| (p.text.clone(), id as u32))
        .collect::<tokenizers::models::bpe::Vocab>();
    let mut model = BPE::builder().vocab_and_merges(vocab, merges(pieces)).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown);
    }
    let mut tokenizer = Tokenizer::new(model.build()?);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if options.space_prefix {
        normalizers.push(Prepend::new(SPACE.into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(Replace::new(" ", SPACE)?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    add_tokens(&mut tokenizer, pieces.iter().map(|p| (p.text.as_str(), p.kind)))?;
    surround(&mut tokenizer, options.bos, options.eos)?;
    Ok(tokenizer)
}

/// Makes control pieces special and user-defined ones whole.
pub(super) fn add_tokens<'a>(
    tokenizer: &mut Tokenizer,
    pieces: impl Iterator<Item = (&'a str, PieceKind)>,
) -> tokenizers::Result<()> {
    let (mut special, mut whole) = (Vec::new(), Vec::new());
    for (text, kind) in pieces.filter(|(text, _)| !text.is_empty()) {
        match kind {
            PieceKind::Control | PieceKind::Unknown => special.push(AddedToken::from(text, true)),
            PieceKind::UserDefined => whole.push(AddedToken::from(text, false).normalized(false)),
            PieceKind::Normal | PieceKind::Unused | PieceKind::Byte => {}
        }
    }
    tokenizer.add_special_tokens(special)?;
    tokenizer.add_tokens(whole)?;
    Ok(())
}

/// Puts `bos` before and `eos` after a text that is encoded with special tokens, and nothing else.
pub(super) fn surround(tokenizer: &mut Tokenizer, bos: Option<u32>, eos: Option<u32>) -> tokenizers::Result<()> {
    if bos.is_none() && eos.is_none() {
        tokenizer.with_post_processor(None::<TemplateProcessing>);
        return Ok(());
    }
    let text_of = |id: u32| tokenizer.id_to_token(id).ok_or_else(|| format!("there is no token {id}"));
    let (mut template, mut special) = (Vec::new(), Vec::new());
    if let Some(id) = bos {
        template.push("BEFORE:0".to_owned());
        special.push(SpecialToken::new("BEFORE".into(), vec![id], vec![text_of(id)?])?);
    }
    template.push("$A:0".to_owned());
    if let Some(id) = eos {
        template.push("AFTER:0".to_owned());
        special.push(SpecialToken::new("AFTER".into(), vec![id], vec![text_of(id)?])?);
    }
    let processor = TemplateProcessing::builder().try_single(template)?.special_tokens(special).build()?;
    tokenizer.with_post_processor(Some(processor));
    Ok(())
}

/// All ways to make a normal piece of two pieces, best score first, then in order of ids, longest first part first.
fn merges(pieces: &[Piece]) -> Vec<(String, String)> {
    let joinable = |p: &&Piece| matches!(p.kind, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused);
    let known: HashSet<&str> = pieces.iter().filter(joinable).map(|p| p.text.as_str()).collect();
    let mut found: Vec<(f32, usize, usize, &str)> = Vec::new();
    for (id, piece) in pieces.iter().enumerate().filter(|(_, p)| p.kind == PieceKind::Normal) {
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if known.contains(left) && known.contains(right) {
                found.push((piece.score, id, at, &piece.text));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2)));
    found.into_iter().map(|(_, _, at, text)| (text[..at].to_owned(), text[at..].to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, score: f32) -> Piece {
        Piece { text: text.into(), score, kind: PieceKind::Normal }
    }

    #[test]
    fn the_best_scored_piece_is_joined_first() {
        let mut pieces = vec![
            Piece { text: "<unk>".into(), score: 0.0, kind: PieceKind::Unknown },
            Piece { text: "<s>".into(), score: 0.0, kind: PieceKind::Control },
        ];
        pieces.extend([piece("a", -9.0), piece("b", -9.0), piece("c", -9.0), piece(SPACE, -9.0)]);
        pieces.extend([piece("bc", -1.0), piece("ab", -2.0), piece("▁a", -3.0)]);
        let options = Options { space_prefix: true, bos: Some(1), eos: None };
        let tokenizer = build(&pieces, &options).unwrap();
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        // "bc" beats "ab", which leaves "▁a".
        assert_eq!(ids("abc"), [1, 8, 6]);
        assert_eq!(ids("b ab"), [1, 5, 3, 5, 7]);
        assert_eq!(tokenizer.decode(&ids("b ab"), true).unwrap(), "b ab");
    }
}
