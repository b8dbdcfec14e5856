import MATControl
import MATRuntime
import MATSignal

/// Looks for nodes with a text, in the loop's thread.
package typealias ViewSearch = (_ text: String, _ completion: @escaping (ViewReport.Found) -> Void) -> Void

extension HTTPListener {
    /// How often who looks on hears how things are.
    static let viewIntervalSeconds: Int64 = 2
    /// How old what is shown may be.
    private static let viewAge: Duration = .seconds(1)

    /// A page for people: who is where, what happens. It asks nobody who he is, so it is for loopback only; it changes nothing, and gets
    /// nothing from elsewhere.
    ///
    /// - Parameters:
    ///   - find: gives nodes with a text in their home address or where they are, those that a report has no room for too, at once or in a while.
    ///   - report: how things are; `nil` when the daemon is ending.
    package static func view(
        of program: String, _ loop: EventLoop, find: @escaping ViewSearch, _ report: @escaping () -> ViewReport?
    ) -> HTTPListener {
        // However many look on, things are looked at once for all of them.
        var latest: (report: ViewReport?, at: MonotonicTime)?
        let page = page(loop) {
            let now = SystemClock.now().monotonic
            let report = latest.flatMap { now - $0.at < viewAge ? $0.report : nil } ?? report()
            if latest.map({ now - $0.at >= viewAge }) ?? true { latest = (report, now) }
            return { report.flatMap { try? ControlJSON.encode($0) }.map { String(decoding: $0, as: UTF8.self) } ?? "{}" }
        }
        return HTTPListener(
            title: "a page for people",
            HTTPSite(
                program: program, section: "view",
                resources: [
                    "/": .text(ViewPage.document, type: "text/html; charset=utf-8"),
                    "/view.css": .text(ViewStyle.sheet, type: "text/css; charset=utf-8"),
                    "/view.js": .text(ViewScript.program, type: "text/javascript; charset=utf-8"),
                    "/view.json": .page(type: "application/json", page),
                    "/nodes.json": .search(type: "application/json", search(loop, find)),
                    "/events": .events(everySeconds: viewIntervalSeconds, page),
                ],
                headers: [
                    (
                        "Content-Security-Policy",
                        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'"
                    ),
                    ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
                ],
                wantsOwnName: true))
    }

    /// Looked for in the loop's thread.
    private static func search(_ loop: EventLoop, _ find: @escaping ViewSearch) -> @Sendable (String) -> HTTPResource.Page {
        let reference = UncheckedSearch(find)
        let poster = loop.poster
        return { text in
            { respond in
                poster.post {
                    reference.find(text) { found in
                        respond { (try? ControlJSON.encode(found)).map { String(decoding: $0, as: UTF8.self) } ?? "{}" }
                    }
                }
            }
        }
    }

    /// Called in the loop's thread only.
    private final class UncheckedSearch: @unchecked Sendable {
        let find: ViewSearch
        init(_ find: @escaping ViewSearch) { self.find = find }
    }
}
