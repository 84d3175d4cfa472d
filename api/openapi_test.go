package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPIHasEveryRoute compares the paths with the routes of the server.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	var want, got []string
	for pattern := range NewServer(nil, nil).routes() {
		want = append(want, pattern)
	}
	for path, item := range loadOpenAPI(t).Paths.Map() {
		for method := range item.Operations() {
			got = append(got, method+" "+path)
		}
	}
	sort.Strings(want)
	sort.Strings(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("openapi.yaml has other routes than the server (-server +openapi.yaml)\n%s", diff)
	}
}

// TestOpenAPISchemas compares the properties of each schema, their types, and which
// of them are always there, with the Go types.
func TestOpenAPISchemas(t *testing.T) {
	doc := loadOpenAPI(t)
	types := map[string]reflect.Type{
		"Table":       reflect.TypeFor[ipvs.Document](),
		"VIP":         reflect.TypeFor[ipvs.VIP](),
		"Timeouts":    reflect.TypeFor[ipvs.Timeouts](),
		"Service":     reflect.TypeFor[ipvs.Service](),
		"Persistence": reflect.TypeFor[ipvs.Persistence](),
		"Destination": reflect.TypeFor[ipvs.Destination](),
		"Tunnel":      reflect.TypeFor[ipvs.TunnelOptions](),
		"Change":      reflect.TypeFor[ipvs.Change](),
		"Daemon":      reflect.TypeFor[ipvs.Daemon](),
		"WriteResult": reflect.TypeFor[WriteResult](),
		"PendingNode": reflect.TypeFor[PendingNode](),
		"Status":      reflect.TypeFor[Status](),
		"NodeStatus":  reflect.TypeFor[NodeStatus](),
		"ObjectError": reflect.TypeFor[ObjectError](),
		"Events":      reflect.TypeFor[Events](),
		"Event":       reflect.TypeFor[Event](),
		"Step":        reflect.TypeFor[Step](),
		"SilentNode":  reflect.TypeFor[SilentNode](),
		"Member":      reflect.TypeFor[Member](),

		"MemberSettings":   reflect.TypeFor[MemberSettings](),
		"MemberConfigured": reflect.TypeFor[MemberConfigured](),
		"Problem":          reflect.TypeFor[Problem](),
		"FieldError":       reflect.TypeFor[FieldError](),
	}
	// Answers; in what clients send, defaults may be left out.
	answers := []string{"WriteResult", "PendingNode", "Status", "NodeStatus", "ObjectError", "Events", "Event", "Step", "SilentNode", "Member", "Problem", "FieldError", "Daemon"}
	for name, typ := range types {
		schema := doc.Components.Schemas[name]
		if schema == nil {
			t.Errorf("openapi.yaml lacks the schema %s", name)
			continue
		}
		always := []string{}
		fields := map[string]bool{}
		for i := range typ.NumField() {
			tag, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			fields[tag] = true
			if options == "" {
				always = append(always, tag)
			}
			if schema.Value.Properties[tag] == nil {
				t.Errorf("schema %s lacks %s", name, tag)
			}
		}
		for property := range schema.Value.Properties {
			if !fields[property] {
				t.Errorf("schema %s has %s, %s does not", name, property, typ)
			}
		}
		if slices.Contains(answers, name) {
			required := slices.Sorted(slices.Values(schema.Value.Required))
			sort.Strings(always)
			if diff := cmp.Diff(always, required); diff != "" {
				t.Errorf("schema %s: required (-%s +openapi.yaml)\n%s", name, typ, diff)
			}
		}
	}
	var kinds []string
	for kind := range httpStatus {
		kinds = append(kinds, string(kind))
	}
	sort.Strings(kinds)
	var listed []string
	for _, v := range doc.Components.Schemas["Problem"].Value.Properties["type"].Value.Enum {
		listed = append(listed, v.(string))
	}
	sort.Strings(listed)
	if diff := cmp.Diff(kinds, listed); diff != "" {
		t.Errorf("the problem types (-code +openapi.yaml)\n%s", diff)
	}
}

// TestOpenAPIAnswers holds real answers to the schemas.
func TestOpenAPIAnswers(t *testing.T) {
	doc := loadOpenAPI(t)
	agent := newFake(t)
	handler := NewServer(agent, nil).Handler()
	tests := []struct{ method, path, template, body string }{
		{"GET", "/v1/table", "", ""},
		{"PUT", "/v1/table", "", tableJSON},
		{"PUT", "/v1/table", "", "{"},
		{"POST", "/v1/changes", "", `{"changes":[{"op":"delete-service","key":"tcp://10.9.0.1:80"}]}`},
		{"POST", "/v1/changes", "", `{"changes":[]}`},
		{"GET", "/v1/status", "", ""},
		{"GET", "/v1/events?node=d1&limit=7", "/v1/events", ""},
		{"GET", "/v1/events?limit=0", "/v1/events", ""},
		{"GET", "/v1/members", "", ""},
		{"DELETE", "/v1/members/d9", "/v1/members/{node}", ""},
		{"DELETE", "/v1/members/nobody", "/v1/members/{node}", ""},
		{"PATCH", "/v1/members/d9", "/v1/members/{node}", `{"drained":true}`},
		{"PATCH", "/v1/members/d9", "/v1/members/{node}", `{}`},
		{"POST", "/v1/members/d9/replace", "/v1/members/{node}/replace", ""},
		{"POST", "/v1/transfer?to=d2", "/v1/transfer", ""},
		{"POST", "/v1/reconcile", "", ""},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body)))
		template := tt.template
		if template == "" {
			template = tt.path
		}
		responses := doc.Paths.Find(template).GetOperation(tt.method).Responses
		response := responses.Status(w.Code)
		if response == nil {
			response = responses.Default()
		}
		if w.Code == http.StatusNoContent {
			continue
		}
		body, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		content := response.Value.Content[w.Header().Get("Content-Type")]
		if content == nil {
			t.Errorf("%s %s: an answer of type %q", tt.method, tt.path, w.Header().Get("Content-Type"))
			continue
		}
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatalf("%s %s: %v: %s", tt.method, tt.path, err, body)
		}
		if err := content.Schema.Value.VisitJSON(v); err != nil {
			t.Errorf("%s %s: %v", tt.method, tt.path, err)
		}
	}
}
