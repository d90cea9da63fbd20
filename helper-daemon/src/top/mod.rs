//! stub
pub(crate) fn run(_: &crate::cli::Top) -> anyhow::Result<()> {
    Ok(())
}
