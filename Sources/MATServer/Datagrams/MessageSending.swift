import CLinux
import Glibc

/// Sends messages by as few calls as may be. The first of those left that can't be sent, to nowhere that is routed for example, is left out; the
/// others may be.
///
/// - Parameter refused: gets the places of those that were left out.
@inline(__always)
func sendMessages(
    _ messages: UnsafeMutablePointer<mat_message>, _ count: Int, by descriptor: Int32, flags: Int, refused: (Int) -> Void
) {
    var done = 0
    while done < count {
        let sent = Int(mat_sendmmsg(descriptor, messages + done, UInt32(count - done), Int32(flags)))
        if sent > 0 {
            done += sent
        } else if errno != EINTR {
            refused(done)
            done += 1
        }
    }
}
