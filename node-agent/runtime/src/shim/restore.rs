//! Restores a container from a checkpoint.

use super::Shim;
use super::protocol::{Refusal, RestoreOrder};

impl Shim {
    pub(super) fn prepare(&mut self) -> Result<(), Refusal> {
        Err(Refusal::Failed { message: "restore isn't built yet".to_owned() })
    }

    pub(super) fn restore(&mut self, _order: RestoreOrder) -> Result<(), Refusal> {
        self.prepare()
    }

    pub(super) fn answer(&mut self, _hook: &str, _proceed: bool) -> Result<(), Refusal> {
        self.prepare()
    }
}
