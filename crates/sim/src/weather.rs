//! What befalls the ledger: slowness, outages, answers that nobody hears.

use std::sync::Arc;

use async_trait::async_trait;
use farebox_protocol::PaymentId;
use farebox_store::{Mishap, Operation, Weather};

use crate::bug::Bug;
use crate::event::Event;
use crate::world::World;

/// The weather of this world.
#[derive(Debug)]
pub(crate) struct WorldWeather(pub(crate) Arc<World>);

impl WorldWeather {
    fn mishap(&self, operation: Operation) -> Mishap {
        let world = &self.0;
        // A process that cannot start is one that crashes at its start.
        if matches!(operation, Operation::Recover | Operation::Secret) {
            return Mishap::None;
        }
        if world.strikes(|it| it.ledger_unavailable) {
            return Mishap::Unavailable;
        }
        if world.strikes(|it| it.ledger_unknown) {
            return if world.luck(|it| it.percent(50)) {
                Mishap::UnknownBefore
            } else {
                Mishap::UnknownAfter
            };
        }
        match (world.bug, operation) {
            (Some(Bug::AcksBeforeDurable), _)
            | (Some(Bug::ServesBeforeHold), Operation::Admit | Operation::BeginServe) => {
                Mishap::Unflushed
            }
            _ => Mishap::None,
        }
    }
}

#[async_trait]
impl Weather for WorldWeather {
    async fn before(&self, operation: Operation, payment: Option<PaymentId>) -> Mishap {
        let world = &self.0;
        world.port().await;
        let longest = if world.strikes(|it| it.ledger_slow) { 3_000 } else { 3 };
        world.pause(0, longest).await;
        world.port().await;
        let mishap = self.mishap(operation);
        if !matches!(mishap, Mishap::None | Mishap::Unflushed) {
            world.log(Event::Mishap { operation, payment, mishap });
        }
        mishap
    }

    async fn after(&self, _operation: Operation, _payment: Option<PaymentId>) {
        let world = &self.0;
        world.observe();
        world.port().await;
        let longest = if world.strikes(|it| it.ledger_slow) { 3_000 } else { 2 };
        world.pause(0, longest).await;
        world.port().await;
    }
}
