package api1

import (
	"fmt"
	"strings"
)

// kind is how a value of API 2.0 becomes one of API 1.0's JSON.
type kind string

const (
	plain   kind = ""
	number  kind = "int"  // text with a number becomes that number
	boolean kind = "bool" // "true" and "false" become those words
	nested  kind = "json" // text with JSON becomes that JSON
	hit     kind = "hit"  // "Hit" becomes true
)

// field is a field of an event.
type field struct {
	name string // in API 1.0
	from []string
	kind kind
}

// eventType is a type of event.
type eventType struct {
	name   string // in API 2.0
	file   string // the beginning of API 1.0's file names
	fields []field
}

// types is the field table: each type of event with its fields in API 1.0, in the order
// in which they are written. Before them come datetime, aCode and acc: see [translate].
//
// A field is NAME=FROM:KIND. FROM may name alternatives, of which the first that the
// event has counts; without it, that of the same name in sameForAll does.
var types = []eventType{
	{"receipt", "receipt", fields(`Act Dir IP MsgId Subject headerFrom Sender Rcpt TlsVer Cphr SpamScore=spamScore:int SpamLimit=spamDetectionLevel:int
		SpamInfo=spamInfo SpamProcessingDetail=spamProcessingDetail:json RejType RejCode RejInfo Error=receiptErrors Virus`)},
	{"process", "process", fields(`Act AttCnt AttNames=attachments AttSize MsgSize=emailSize:int Hld=holdReason MsgId Sender Subject
		IPNewDomain=ipNewDomain IPReplyMismatch=ipReplyMismatch IPSimilarDomain=ipSimilarDomain IPThreadDict=ipThreatDictionary IPInternalName=ipUserName`)},
	{"delivery", "delivery", fields(`Delivered=delivered:bool IP=destinationIp Dir Rcpt Sender MsgId Subject Latency=deliveryTime:int Attempt=deliveryAttempts:int
		Snt=emailSize:int AttCnt AttSize UseTls=tlsUsed TlsVer Cphr Route Err=deliveryErrors RejType RejCode RejInfo`)},
	{"journal", "jrnl", fields(`Sender Rcpt Dir`)},
	{"spam", "spam", fields(`MsgId Recipient Route Sender SenderDomain SourceIP=senderIp Subject headerFrom`)},
	{"av", "av", fields(`IP MsgId Recipient Route Sender SenderDomain SenderDomainInternal=senderDomainInternal Size=emailSize:int Subject Virus
		fileName fileExt md5 sha1 sha256`)},
	{"url protect", "ttp_url", fields(`reason=blockReason url route=route sourceIp=sourceIp/senderIp sender=senderEnvelope recipient=recipients action
		urlCategory senderDomain=senderDomain subject=subject msgid=messageId credentialTheft`)},
	{"attachment protect", "ttp_ap", fields(`fileName fileExt fileMime md5 sha1 sha256 IP Size=sizeAttachment:int Sender SenderDomain Recipient Route`)},
	{"impersonation protect", "ttp_impersonation", fields(`Action=action Definition=policyDefinition Hits=itemsDetected IP NewDomain=newDomain ReplyMismatch=replyMismatch
		InternalName=internalUserName:hit CustomName=customNameMatch CustomThreatDictionary=customThreatDictionary ThreatDictionary=mimecastThreatDictionary
		SimilarInternalDomain=similarInternalDomain SimilarCustomExternalDomain=similarCustomExternalDomain
		SimilarMimecastExternalDomain=similarMimecastExternalDomain TaggedExternal=taggedExternal TaggedMalicious=taggedMalicious
		MsgId Recipient Route Sender Subject`)},
	{"internal email protect", "ttp_iep", fields(`ScanResultInfo=scanResults UrlCategory=urlCategory MsgId Recipient Route Sender Subject`)},
}

// sameForAll are the fields that most types share, as they are written in the table. A
// field that is in neither has one name in both APIs.
var sameForAll = map[string]string{
	"Act":          "action",
	"AttCnt":       "numberAttachments:int",
	"AttSize":      "totalSizeAttachments:int",
	"Cphr":         "tlsCipher",
	"Dir":          "direction",
	"IP":           "senderIp",
	"MsgId":        "messageId",
	"Rcpt":         "recipients",
	"Recipient":    "recipients",
	"RejCode":      "rejectionCode",
	"RejInfo":      "rejectionInfo",
	"RejType":      "rejectionType",
	"Route":        "route",
	"Sender":       "senderEnvelope",
	"SenderDomain": "senderDomain",
	"Subject":      "subject",
	"TlsVer":       "tlsVersion",
	"Virus":        "virusFound",
	"fileExt":      "fileExtension",
	"headerFrom":   "senderHeader",
}

// fields parses a row of the table.
func fields(row string) []field {
	var list []field
	for item := range strings.FieldsSeq(row) {
		name, from, ok := strings.Cut(item, "=")
		if !ok {
			if from, ok = sameForAll[name]; !ok {
				from = name
			}
		}
		from, k, _ := strings.Cut(from, ":")
		list = append(list, field{name, strings.Split(from, "/"), kind(k)})
	}
	return list
}

// noCounterpart are the fields of API 1.0 that API 2.0 has nothing for, by type.
var noCounterpart = map[string]string{
	"delivery":               "ReceiptAck",
	"journal":                "RcptActType, RcptHdrType",
	"av":                     "MimecastIP",
	"internal email protect": "URL",
}

// FieldTable returns the field table in Markdown, for the documentation.
func FieldTable() string {
	var b strings.Builder
	b.WriteString("| type in 2.0 | file in 1.0 | fields: 1.0 = 2.0 | missing |\n|---|---|---|---|\n")
	for _, t := range types {
		var list []string
		for _, f := range t.fields {
			text := "`" + f.name + "` = `" + strings.Join(f.from, "` or `") + "`"
			if f.kind != plain {
				text += " (" + string(f.kind) + ")"
			}
			list = append(list, text)
		}
		_, _ = fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", t.name, t.file, strings.Join(list, ", "), noCounterpart[t.name]) // a Builder takes everything
	}
	return b.String()
}
