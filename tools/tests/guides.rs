//! Every command of the guides in `docs/guides`, run as it is written, and what it prints.

#[test]
fn guides_do_as_they_say() {
    trycmd::TestCases::new()
        .register_bin("sgwall", trycmd::cargo::cargo_bin!("sgwall"))
        .case("../docs/guides/*.md");
}
