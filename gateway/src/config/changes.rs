//! What a running gateway cannot take over from a changed file.

use super::Config;

impl Config {
    /// Keys in which the two differ and which hold for the life of a gateway: interfaces, addresses, threads, its own key.
    /// Everything else can be reloaded.
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let (one, two) = (&self.outside, &other.outside);
        let (inside, inside_two) = (&self.inside, &other.inside);
        let pairs = [
            ("gateway.private_key_file (another key)", self.secret.public() == other.secret.public()),
            ("gateway.admin_socket", self.admin_socket == other.admin_socket),
            ("outside.interface", one.interface == two.interface),
            ("outside.listen", one.listen == two.listen),
            ("outside.mode", one.mode == two.mode),
            ("outside.zero_copy", one.zero_copy == two.zero_copy),
            ("inside.kind", inside.kind == inside_two.kind),
            ("inside.interface", inside.interface == inside_two.interface),
            ("inside.pool_v4", inside.pool.v4() == inside_two.pool.v4()),
            ("inside.pool_v6", inside.pool.v6() == inside_two.pool.v6()),
            ("inside.router", inside.router == inside_two.router),
            ("metrics.listen", self.metrics_listen == other.metrics_listen),
            ("workers.count", self.workers.count == other.workers.count),
            ("workers.cpus", self.workers.cpus == other.workers.cpus),
            ("audit", self.audit == other.audit),
        ];
        pairs.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}
