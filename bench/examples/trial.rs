use jumpgate_bench::load::{crowd::Jump, engine::Engine, plant::PlantConfig, scenario};
use jumpgate_protocol::time::Span;
fn main() -> anyhow::Result<()> {
    let n: u32 = std::env::args().nth(1).unwrap().parse()?;
    let rate: u64 = std::env::args().nth(2).unwrap().parse()?;
    let config = PlantConfig { clients: n, seed: 1, profile: "default".into(),
        policy: "limits.handshakes_per_source = [10000, 10000]\nlimits.handshakes_total = 1_000_000\nlimits.control_total = 10_000_000\nlimits.max_half_open = 100000".into(),
        tables: String::new(), cpu: 0, mode: "native" };
    let mut e = Engine::start(&config, 1)?;
    let t = scenario::arrive(&mut e, rate, Span::from_millis(30_000))?;
    println!("arrived {} of {n} in {} ms; begun {} failed {:?}", e.crowd.attached(), t.as_millis(), e.crowd.book.begun, e.crowd.book.failed);
    println!("handshake {:?}", e.crowd.book.handshake.distribution());
    let r0 = e.reading()?;
    scenario::settle(&mut e)?;
    println!("rss {} anon {}", e.reading()?.resident >> 20, e.reading()?.anonymous >> 20);
    let _ = r0;
    if e.crowd.attached() == u64::from(n) {
        for _ in 0..3 {
            let r1 = e.reading()?;
            let t = scenario::storm(&mut e, Jump::LinkDown, Span::from_millis(10_000))?;
            println!("storm {} back in {} ms {:?}; gw cpu {:.3}", e.crowd.book.reattach.count(), t.as_millis(), e.crowd.book.reattach.distribution(), e.reading()?.cpu_since(&r1));
            e.run(Span::from_millis(3000), |_, _| Ok(false))?;
        }
    }
    println!("refused {:?} ended {:?} dropped {:?} missed {:?} gap {:?} frames {:?} live {}", e.crowd.book.refused, e.crowd.book.ended, e.crowd.book.dropped, e.crowd.missed()?, e.longest_gap, e.crowd.frames, e.crowd.live());
    println!("{}", e.plant.ask("counters")?.as_array().unwrap().iter().filter(|r| r["value"] != 0).map(|r| format!("{} {}={}", r["part"].as_str().or(r["source"].as_str()).unwrap_or(""), r["name"], r["value"])).collect::<Vec<_>>().join("\n"));
    e.plant.stop()?;
    Ok(())
}
