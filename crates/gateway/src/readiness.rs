//! Whether payments could be settled, as `/readyz` tells it: of a gateway, and of a facilitator alone.

use farebox_chains::{Facilitator, NetworkReadiness};
use serde::Serialize;

use crate::problem::{Kind, Problem};

/// A network on which nothing can be settled now.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Obstacle {
    network: String,
    /// What is in the way, with what to do.
    obstacle: String,
}

/// What is in the way on some networks, while others go on; a problem where nothing can be settled on
/// any. Nobody is asked: it is what was seen last.
pub(crate) fn obstacles(facilitator: &dyn Facilitator) -> Result<Vec<Obstacle>, Problem> {
    let networks = facilitator.readiness();
    let all = networks.len();
    let obstacles: Vec<Obstacle> = networks.into_iter().filter_map(obstacle).collect();
    if obstacles.is_empty() || obstacles.len() < all {
        return Ok(obstacles);
    }
    let told: Vec<String> =
        obstacles.iter().map(|it| format!("{}: {}", it.network, it.obstacle)).collect();
    let detail = format!("Nothing can be settled: {}.", told.join("; "));
    Err(Problem::new(Kind::Unavailable, detail))
}

fn obstacle(of: NetworkReadiness) -> Option<Obstacle> {
    let obstacle = of.obstacle?;
    Some(Obstacle { network: of.network.to_string(), obstacle })
}
