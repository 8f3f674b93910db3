//! The name of this Groundstation among several, for every command that publishes.

use anyhow::anyhow;
use clap::Args;

use super::given;
use crate::domain::cell::Cell;

/// The setting of the cell.
#[derive(Args, Clone)]
pub struct CellArgs {
    /// The name of this cell, the same for all its pods and for no other cell, where the streams of several are merged.
    /// It is in ce-source and in the header Groundstation-Cell. 1 to 64 letters, digits, - _ . [default: none]
    #[arg(long, env = "GROUNDSTATION_CELL", value_name = "NAME")]
    cell: Option<String>,
}

impl CellArgs {
    /// The checked name, if there is one.
    pub fn cell(&self) -> anyhow::Result<Option<Cell>> {
        let parse = |text: &str| {
            text.parse().map_err(|wrong| anyhow!("GROUNDSTATION_CELL is {text:?}: {wrong}"))
        };
        given(&self.cell).map(parse).transpose()
    }
}
