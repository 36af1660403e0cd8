//! Settled payments that their chain can still take back: looked at until they are final, reopened if they
//! are gone.

use std::sync::Arc;

use farebox_billing::settlement::{Depth, Look, WatchStep};
use farebox_chains::Permanence;
use farebox_store::{StoreError, Watch};
use tokio_util::sync::CancellationToken;

use super::attempt::request;
use super::{IN_FLIGHT_MAX, Settler};

impl Settler {
    /// Starts a look at each payment that is due for one; how many.
    pub(super) async fn start_due_looks(self: &Arc<Self>) -> Result<usize, StoreError> {
        let due = self.ledger.due_watches(IN_FLIGHT_MAX, self.clock.now()).await?;
        let mut started: usize = 0;
        for watch in due {
            if !self.looking().insert(watch.terms.id) {
                continue;
            }
            started = started.saturating_add(1);
            let settler = Arc::clone(self);
            self.tasks.spawn(async move {
                let id = watch.terms.id;
                settler.look_at(watch).await;
                settler.looking().remove(&id);
                settler.kick();
            });
        }
        Ok(started)
    }

    async fn look_at(&self, watch: Watch) {
        let id = watch.terms.id;
        let mut look = Look::default();
        let done = loop {
            let depth = self.depth_of(&watch).await;
            match look.saw(depth, self.moment(id)) {
                WatchStep::Finish => break self.ledger.watch(id, None).await,
                WatchStep::Wait { look_at } => break self.ledger.watch(id, Some(look_at)).await,
                WatchStep::Doubt(pause) => {
                    self.clock.sleep_until(self.clock.now().plus(pause)).await;
                }
                WatchStep::Reopen => break self.reopen(&watch).await,
            }
        };
        // What was not recorded is due again.
        if let Err(error) = done {
            tracing::warn!(payment.id = %id, %error, "how deep a settlement is was not recorded");
        }
    }

    async fn reopen(&self, watch: &Watch) -> Result<(), StoreError> {
        let Watch { terms, charge, transaction } = watch;
        let never = CancellationToken::new();
        let now = self.clock.now();
        self.record(&never, || self.ledger.reopen(terms.id, transaction, now)).await?;
        tracing::error!(
            payment.id = %terms.id,
            route = %terms.route,
            network = %terms.asset.network(),
            amount_units = %charge,
            transaction,
            "the chain took back a settlement: it is owed again"
        );
        Ok(())
    }

    async fn depth_of(&self, watch: &Watch) -> Depth {
        let id = watch.terms.id;
        let request = match request(&watch.terms, watch.charge) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(payment.id = %id, %error, "stored payment is unreadable");
                return Depth::CannotTell;
            }
        };
        match self.facilitator.permanence(&request, &watch.transaction).await {
            Ok(Permanence::Final) => Depth::Final,
            Ok(Permanence::Shallow { left }) => Depth::Shallow { left },
            Ok(Permanence::Gone) => Depth::Gone,
            Ok(Permanence::CannotTell) => Depth::CannotTell,
            Err(error) => {
                tracing::warn!(payment.id = %id, %error, "a settlement could not be looked at");
                Depth::NoAnswer
            }
        }
    }
}
