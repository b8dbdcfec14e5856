import IMTKernel
import IMTPlan
import MATRuntime
import MATSignal

// A process that does nothing but replace 10,000 bindings in one transaction, again and again, until it is killed: what the tests
// of crashes kill. In each transaction all peers move to the same next MoA, so a mixture shows that one was applied in part.

let loop = try EventLoop()
guard let own = HomeAddress("192.0.2.1"), let moa = MobileAddress("10.1.0.2") else { fatalError("addresses") }
let kernel = try IMTKernel(loop: loop, configuration: IMTConfiguration(homeAddresses: [own])) { _ in }
_ = try kernel.start()
try kernel.setOwnLocators(try kernel.currentLinks().usable)
try kernel.commit([.setOwn(moa, own)])
var turn: UInt32 = 0
while true {
    let old = IPAddress(ipv4: 0x0A09_0000 + turn % 200)
    turn += 1
    let new = IPAddress(ipv4: 0x0A09_0000 + turn % 200)
    var changes: [IMTChange] = [.removeInbound(peer: MobileAddress(old), own: own)]
    for number in 0..<10_000 {
        let home = HomePair(own: own, peer: HomeAddress(IPAddress(ipv4: 0xC612_0000 + UInt32(number))))
        changes.append(.setOutbound(home, .rewritten(MobilePair(own: moa, peer: MobileAddress(new)))))
        if number == 0 { changes.append(.setInbound(peer: MobileAddress(new), home)) }
    }
    try kernel.commit(changes)
}
