//! Pairs of answers: what a person would call the same, and what only looks it.

use super::*;

const SAME: &[(&str, &str)] = &[
    // Spacing, sizes, dollars.
    ("42", "42"),
    (" 42 ", "42"),
    ("$42$", "42"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"\left(3,\dfrac{\pi}{2}\right)", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"\displaystyle\frac{3}{56}", r"\frac{3}{56}"),
    (r"\bigl(1, 2\bigr)", "(1,2)"),
    (r"\(7\)", "7"),
    ("12.", "12"),
    // Fractions.
    (r"\dfrac{17}{50}", r"\frac{17}{50}"),
    (r"\tfrac{17}{50}", r"\frac{17}{50}"),
    (r"\frac43", r"\frac{4}{3}"),
    (r"\frac 59", "5/9"),
    (r"\frac9{19}", r"\frac{9}{19}"),
    (r"-\frac{3}{8}", r"\frac{-3}{8}"),
    (r"\frac{3}{-8}", r"-\frac{3}{8}"),
    ("0.5", r"\frac{1}{2}"),
    (r"\frac{2}{4}", r"\frac{1}{2}"),
    (r"1\frac{4}{5}", r"\frac{9}{5}"),
    (r"137 \frac{1}{2}", "137.5"),
    (r"\frac{\frac{1}{2}}{3}", r"\frac{1}{6}"),
    // Numbers.
    ("1.250", "1.25"),
    (".35625", "0.35625"),
    ("007", "7"),
    ("3.0", "3"),
    ("58,500", "58500"),
    (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11,111,111,100"),
    (r"\$32,\!348", "32348"),
    ("1{,}234", "1234"),
    ("1{,}234{,}567.5", "1,234,567.5"),
    (r"\frac{1{,}234}{5}", "246.8"),
    ("(1{,}234, 5)", "(1234,5)"),
    ("1{,}2", "1, 2"),
    (r"\$18.90", "18.9"),
    ("-50", "\u{2212}50"),
    ("+5", "5"),
    ("6.72 \\times 10^{-5}", ".0000672"),
    // Units, degrees, percent.
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    ("90°", "90"),
    ("90 degrees", "90"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"5.4 \text{ cents}", "5.4"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"15\mbox{ cm}^2", "15"),
    ("15 cm^2", "15"),
    ("10 square units", "10"),
    (r"20\%", "20"),
    ("36 dollars", r"\$36"),
    (r"12\,\mathrm{m}", "12"),
    (r"12\pi\text{ cm}", r"12\pi"),
    (r"12\pi\text{cm}", r"12\pi"),
    (r"36\pi\text{ cm}^2", r"36\pi"),
    (r"36\pi\mbox{ square inches}", r"36\pi"),
    (r"2\pi\text{ radians}", r"2\pi"),
    (r"x\text{ cm}", "x"),
    (r"2x+1\text{ or }3x\text{ feet}", "2x+1, 3x"),
    // Words and choices.
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{east}", "East"),
    (r"\mathrm{even}", r"\text{even}"),
    (r"\text{(C)}", "C"),
    (r"\textbf{(E)}", r"\text{(E)}"),
    // Roots, constants, algebra.
    (r"11\sqrt2", r"11\sqrt{2}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"288 \pi", r"288\pi"),
    (r"18+2\pi", r"2\pi+18"),
    ("p - q", "-q + p"),
    ("6+9i", "9i+6"),
    ("(a+5)(b+2)", "ab + 2a + 5b + 10"),
    ("x^{5}", "x^5"),
    ("2x", r"2 \cdot x"),
    (r"\cot x", r"\frac{\cos x}{\sin x}"),
    (r"\sqrt[3]{8}", "2"),
    (r"2^{10}", "1024"),
    // Several parts.
    ("1,-2", "-2, 1"),
    ("3, 5, 7", "7,5,3"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1-\sqrt5, 1+\sqrt5\}"),
    (r"x=2 \text{ or } x=3", "2,3"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)\cup(3,\infty)"),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(0.6, 8/3]"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{pmatrix} -\frac13 \\ \frac{2}{3} \end{pmatrix}"),
    (r"\begin{bmatrix} -1 & 0 \\ 0 & -1 \end{bmatrix}", r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}"),
    // Equations.
    ("x=5", "5"),
    ("y = 2x + 3", "2x+3"),
    ("5x - 7y + 11z + 4 = 0", "-5x + 7y - 11z - 4 = 0"),
    ("y = 2x + 3", "2x - y + 3 = 0"),
    // Bases.
    ("4210_{5}", "4210_5"),
];

const DIFFERENT: &[(&str, &str)] = &[
    ("42", "43"),
    ("", ""),
    ("", "42"),
    ("0.333", r"\frac{1}{3}"),
    ("3.14", r"\pi"),
    ("-5", "5"),
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "(1,2)"),
    ("(1,2]", "[1,2)"),
    ("(1,2)", "(1,2,3)"),
    ("1,2", "1,3"),
    ("1,1", "1"),
    ("3, 5, 7", "3, 5"),
    (r"\{1,2\}", r"\{1,3\}"),
    ("52_8", "52"),
    ("52_8", "52_9"),
    (r"\text{east}", r"\text{west}"),
    (r"\text{even}", r"\text{odd}"),
    (r"\text{(C)}", r"\text{(B)}"),
    (r"12\pi\text{ cm}", r"12\text{ cm}"),
    (r"12\pi\text{ cm}", r"11\pi"),
    (r"36\pi\text{ cm}^2", r"36\pi^2"),
    (r"x\text{ cm}", "y"),
    ("x", "X"),
    ("x", "y"),
    ("2x+3", "2x-3"),
    ("x=5", "x=6"),
    ("y=2x", "x=2y"),
    ("seat", "east"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}"),
    (r"(-\infty, 2)", r"(-\infty, 2]"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    ("58,500", "58.5"),
    ("1{,}234", "1.234"),
    ("1{,}234", "1,2,3,4"),
    ("3{,}14", "314"),
    ("1{,}2345", "12345"),
    ("(1{,}234, 5)", "(1,234,5)"),
    ("100", "10"),
    ("(100)", "(10)"),
    ("no real solutions", "0"),
    (r"\frac{", r"\frac{1}{2}"),
];

#[test]
fn answers_a_person_calls_the_same_are_equivalent() {
    for (a, b) in SAME {
        assert!(equivalent(a, b), "{a}  |  {b}: {} | {}", clean(a), clean(b));
        assert!(equivalent(b, a), "not symmetric: {a}  |  {b}");
    }
}

#[test]
fn answers_that_differ_are_told_apart() {
    for (a, b) in DIFFERENT {
        assert!(!equivalent(a, b), "{a}  |  {b}: {} | {}", clean(a), clean(b));
        assert!(!equivalent(b, a), "not symmetric: {a}  |  {b}");
    }
}

#[test]
fn the_table_is_as_large_as_promised() {
    assert!(SAME.len() >= 60, "{}", SAME.len());
}

#[test]
fn answers_nested_without_end_are_compared_and_told_apart() {
    for (open, close) in
        [(r"\sin", ""), (r"\sqrt{", "}"), (r"\frac{1}{", "}"), ("(", ")"), (r"\{", r"\}"), ("2^{", "}")]
    {
        let answer = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        assert!(!equivalent(&answer, "2"), "{open}");
    }
}
