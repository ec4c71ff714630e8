//! The eight categories of kernel time, and the rules that put a kernel into one.
//!
//! The categories are those of the CMU study of quantized caches. A kernel's name decides where it can; matrix products and
//! reductions serve several parts of a model, so for them the part that launched them decides. The output layer's product counts
//! as sampling, since the step's own kernel chooses the token in the same launch. Quantizing is a part of dequantization.

use super::Event;
use crate::device::ranges::Part;

/// Where kernel time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Attention and its projections.
    Attention,
    /// The MLP's products.
    Ffn,
    /// Codes to numbers, and numbers to codes.
    Dequantization,
    /// Element by element: activations, residuals, rotations, conversions.
    Elementwise,
    /// RMS and layer norm.
    Normalization,
    /// Copies, fills, the cache's appends.
    Memory,
    /// The output layer and the choice of a token.
    Sampling,
    /// The rest: embedding rows, and what no rule knows.
    Other,
}

impl Category {
    /// All of them, in the order of reports.
    pub const ALL: [Category; 8] = [
        Category::Attention,
        Category::Ffn,
        Category::Dequantization,
        Category::Elementwise,
        Category::Normalization,
        Category::Memory,
        Category::Sampling,
        Category::Other,
    ];

    /// Its name in result files.
    pub fn name(self) -> &'static str {
        match self {
            Category::Attention => "attention",
            Category::Ffn => "ffn",
            Category::Dequantization => "dequantization",
            Category::Elementwise => "elementwise",
            Category::Normalization => "normalization",
            Category::Memory => "memory",
            Category::Sampling => "sampling",
            Category::Other => "other",
        }
    }
}

/// What a kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Where its time goes.
    pub category: Category,
    /// Whether it quantizes.
    pub quantizes: bool,
    /// Whether a rule said so, and not the lack of one.
    pub known: bool,
}

/// How a name is looked at.
#[derive(Clone, Copy)]
enum Names {
    /// It begins so.
    Begins(&'static [&'static str]),
    /// It has this in it.
    Holds(&'static [&'static str]),
}

/// What a rule says.
#[derive(Clone, Copy)]
enum Verdict {
    Is(Category),
    Quantizes,
    /// The part of the model that launched it decides.
    ByPart,
}

use Names::{Begins, Holds};
use Verdict::{ByPart, Is, Quantizes};

/// The first rule that a name meets decides.
const RULES: &[(Names, Verdict)] = &[
    // kvprof's kernels (kernels/*.cu).
    // It also copies what is not quantized into one piece.
    (Begins(&["dequantize_f16", "dequantize_bf16"]), ByPart),
    (Begins(&["quantize_hqq", "quantize_min_max", "quantize_fp8"]), Quantizes),
    (Begins(&["decode_", "prefill_", "softmax_causal_", "kvprof_qkv"]), Is(Category::Attention)),
    (Begins(&["kvprof_gate_up"]), Is(Category::Ffn)),
    (Begins(&["kvprof_linear_add"]), ByPart),
    (Begins(&["kvprof_rms_norm", "kvprof_normalize_heads"]), Is(Category::Normalization)),
    (Begins(&["kvprof_logits", "kvprof_next_token"]), Is(Category::Sampling)),
    (Begins(&["append_"]), Is(Category::Memory)),
    // candle's kernels (candle-kernels/src/*.cu): C names, `operation_dtype`.
    (Holds(&["rmsnorm", "layernorm"]), Is(Category::Normalization)),
    (Begins(&["fast_argmax", "fast_argmin", "asort"]), Is(Category::Sampling)),
    (
        Begins(&[
            "rope",
            "hadamard_",
            "swiglu_",
            "add_",
            "affine_",
            "cast_",
            "where_",
            "badd",
            "bsub",
            "bmul",
            "bdiv",
            "bmin",
            "bmax",
        ]),
        Is(Category::Elementwise),
    ),
    (Begins(&["ucopy", "copy2d", "fill_", "const_set", "memcpy", "memset"]), Is(Category::Memory)),
    (Begins(&["eq_", "ne_", "lt_", "le_", "gt_", "ge_"]), Is(Category::Elementwise)),
    (
        Begins(&[
            "uneg", "urecip", "uexp", "ulog", "usin", "ucos", "utanh", "uerf", "uceil", "ufloor", "uround", "usign",
            "unormcdf", "uabs", "usqr", "usqrt", "ugelu", "urelu", "uelu", "usilu", "usigmoid", "upowf",
        ]),
        Is(Category::Elementwise),
    ),
    (Begins(&["softmax", "fast_sum", "fast_max", "fast_min"]), ByPart),
    // Rows of a table: of the embedding, or of positions.
    (Begins(&["is_", "gather_", "s_", "ia_", "sa_"]), Is(Category::Other)),
    // Products: cuBLAS, cutlass and the GGUF kernels.
    (
        Holds(&[
            "gemm",
            "gemv",
            "cutlass",
            "cublas",
            "nvjet",
            "xmma",
            "splitKreduce",
            "dot_kernel",
            "reduce_1Block",
            "mul_mat",
            "quantize_q8_1",
            "quantize_mmq",
        ]),
        ByPart,
    ),
    (Holds(&["dequantize_block"]), ByPart),
];

/// Puts an event into its category. Where no rule knows the name, the part that launched it decides; where that is not known
/// either, it is `other` and not known.
pub fn classify(event: &Event) -> Class {
    let is = |category| Class { category, quantizes: false, known: true };
    if event.copy {
        return is(Category::Memory);
    }
    let by_part = || match event.part {
        Some(Part::Attention) => is(Category::Attention),
        Some(Part::Ffn) => is(Category::Ffn),
        Some(Part::Norm) => is(Category::Normalization),
        Some(Part::Cache) => is(Category::Memory),
        Some(Part::Quantize) => Class { quantizes: true, ..is(Category::Dequantization) },
        Some(Part::Dequantize) => is(Category::Dequantization),
        Some(Part::Elementwise) => is(Category::Elementwise),
        Some(Part::Sampling) => is(Category::Sampling),
        Some(Part::Embedding) => is(Category::Other),
        None => Class { category: Category::Other, quantizes: false, known: false },
    };
    let meets = |names: &Names| match names {
        Begins(list) => list.iter().any(|n| event.name.starts_with(n)),
        Holds(list) => list.iter().any(|n| event.name.contains(n)),
    };
    match RULES.iter().find(|(names, _)| meets(names)) {
        Some((_, Is(category))) => is(*category),
        Some((_, Quantizes)) => Class { quantizes: true, ..is(Category::Dequantization) },
        Some((_, ByPart)) | None => by_part(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, part: Option<Part>) -> Class {
        classify(&Event { name: name.into(), part, copy: false, start_ns: 0, end_ns: 1, count: 1 })
    }

    #[test]
    fn names_that_say_it_all_need_no_part() {
        use Category::*;
        for (name, category) in [
            ("decode_int4_c64_t64_f16_d128", Attention),
            ("decode_dense_bf16_d64", Attention),
            ("prefill_f16_d128", Attention),
            ("prefill_merge_f16_d128", Attention),
            ("kvprof_qkv_f16_b1", Attention),
            ("kvprof_gate_up_bf16_b16", Ffn),
            ("kvprof_rms_norm_f16", Normalization),
            ("kvprof_normalize_heads_bf16", Normalization),
            ("kvprof_logits_f16_b1", Sampling),
            ("kvprof_next_token", Sampling),
            ("append_f16", Memory),
            ("rope_f16_d128", Elementwise),
            ("quantize_hqq_f16_d128_channel_g64", Dequantization),
            ("quantize_fp8_bf16_d64", Dequantization),
            ("rmsnorm_f16", Normalization),
            ("layernorm_f32", Normalization),
            ("badd_f16", Elementwise),
            ("usilu_bf16", Elementwise),
            ("cast_f16_f32", Elementwise),
            ("affine_f32", Elementwise),
            ("ucopy_f16", Memory),
            ("copy2d_f16", Memory),
            ("const_set_u32", Memory),
            ("fast_argmax_f32", Sampling),
            ("is_u32_f16", Other),
        ] {
            for part in [None, Some(Part::Ffn)] {
                let class = class(name, part);
                assert_eq!((class.category, class.known), (category, true), "{name}");
                assert_eq!(class.quantizes, name.starts_with("quantize_"), "{name}");
            }
        }
    }

    #[test]
    fn products_belong_to_the_part_that_launched_them() {
        for name in [
            "kvprof_linear_add_f16_b1",
            "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT",
            "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas",
            "_ZN7cutlass7Kernel2I66cutlass_80_tensorop_f16_s16816gemm_relu_f16_256x128_32x3_tn_align8EEvNT_6ParamsE",
            "_ZN8cublasLt19splitKreduce_kernelILi32ELi16EiffffLb1ELb1ELb0EEEvNS_18cublasSplitKParamsIT5_EE",
            "_Z17gemv2T_kernel_valIiiffffLi128ELi16ELi4ELi4ELb0ELb0E18cublasGemvParamsExE",
            "softmax_f32",
        ] {
            assert_eq!(class(name, Some(Part::Attention)).category, Category::Attention, "{name}");
            assert_eq!(class(name, Some(Part::Ffn)).category, Category::Ffn, "{name}");
            assert_eq!(class(name, Some(Part::Sampling)).category, Category::Sampling, "{name}");
            let lost = class(name, None);
            assert_eq!((lost.category, lost.known), (Category::Other, false), "{name}");
        }
    }

    #[test]
    fn making_a_dense_copy_is_dequantization_only_where_there_were_codes() {
        assert_eq!(class("dequantize_f16_d128", Some(Part::Dequantize)).category, Category::Dequantization);
        assert_eq!(class("dequantize_f16_d128", Some(Part::Cache)).category, Category::Memory);
    }

    #[test]
    fn every_kernel_of_this_project_meets_a_rule() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "cu") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            // An entry point stands before its only parameter, or is made by a macro from a name that ends in `_##`.
            let pieces: Vec<&str> = text.split("(const __grid_constant__").collect();
            for piece in &pieces[..pieces.len() - 1] {
                let name = piece.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '#').next().unwrap();
                let name = name.split("##").next().unwrap();
                let name = if name.is_empty() { path.file_stem().unwrap().to_str().unwrap() } else { name };
                seen += 1;
                let shared = name.starts_with("kvprof_linear_add") || name.starts_with("dequantize");
                let part = shared.then_some(Part::Ffn);
                assert!(class(name, part).known, "{}: no rule for {name}", path.display());
            }
        }
        assert!(seen >= 15, "{seen} entry points found");
    }

    #[test]
    fn parts_decide_for_ranges_of_the_cpu() {
        let categories = Part::ALL.map(|part| class(part.name(), Some(part)));
        assert!(categories.iter().all(|c| c.known));
        assert_eq!(categories.iter().filter(|c| c.quantizes).count(), 1);
        for category in Category::ALL {
            assert!(categories.iter().any(|c| c.category == category), "{category:?}");
        }
    }
}
