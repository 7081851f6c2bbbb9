//! `thumbnet recipes`.

use thumbnet_trainer::error::Result;
use thumbnet_trainer::recipe::BUILT_IN;

/// Lists the built-in recipes, one line each.
pub(super) fn run() -> Result<()> {
    let width = BUILT_IN.iter().map(|built_in| built_in.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for built_in in BUILT_IN {
        text += &format!("{:width$}  {}\n", built_in.name, built_in.recipe()?.description);
    }
    super::print(&text)
}
