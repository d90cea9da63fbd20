/* A flat C interface over libfabric: Rust sees no libfabric structure and no inline function.
 *
 * The library is loaded at run time, with every symbol taken at FABRIC_1.3 or older, so that one
 * build runs on libfabric 1.15, whose API version it asks for, and everything newer. Functions return 0 or a negative errno
 * unless they say otherwise. `endpoint.rs` says which thread may call what.
 */
#define _GNU_SOURCE
#include "abi.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	int (*getinfo)(uint32_t, const char *, const char *, uint64_t, const struct lf_info *,
		       struct lf_info **);
	void (*freeinfo)(struct lf_info *);
	struct lf_info *(*dupinfo)(const struct lf_info *);
	int (*fabric)(struct lf_fabric_attr *, struct lf_fabric **, void *);
	const char *(*strerror)(int);
	uint32_t (*version)(void);
} library;

/* Loads the library at `path`; on failure the reason is left in `reason`. */
int lfs_load(const char *path, char *reason, size_t reason_size)
{
	static const struct {
		const char *name, *version;
		size_t slot;
	} symbols[] = {
		{"fi_getinfo", "FABRIC_1.3", 0}, {"fi_freeinfo", "FABRIC_1.3", 1},
		{"fi_dupinfo", "FABRIC_1.3", 2}, {"fi_fabric", "FABRIC_1.1", 3},
		{"fi_strerror", "FABRIC_1.0", 4}, {"fi_version", "FABRIC_1.0", 5},
	};
	void *found[6];
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		snprintf(reason, reason_size, "%s", dlerror());
		return -ENOENT;
	}
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		found[symbols[i].slot] = dlvsym(handle, symbols[i].name, symbols[i].version);
		if (!found[symbols[i].slot]) {
			snprintf(reason, reason_size, "it has no %s@%s: not a libfabric 1.15 or newer",
				 symbols[i].name, symbols[i].version);
			dlclose(handle);
			return -ELIBBAD;
		}
	}
	_Static_assert(sizeof found == sizeof library, "one slot per function");
	memcpy(&library, found, sizeof library);
	return 0;
}

/* The file that the loaded library came from. */
void lfs_library_path(char *path, size_t size)
{
	Dl_info where;
	snprintf(path, size, "%s",
		 library.version && dladdr((void *)library.version, &where) ? where.dli_fname : "");
}

uint32_t lfs_version(void) { return library.version(); }
const char *lfs_strerror(int error) { return library.strerror(error < 0 ? -error : error); }

/* What one answer of fi_getinfo says; mirrored by `raw::ProviderInfo`. */
struct lfs_info {
	char provider[64], fabric[64], domain[64];
	uint32_t provider_version, protocol, address_format;
	int memory_mode;
	size_t address_length, key_size, max_message_size, transmit_size, receive_size;
};

static void describe(const struct lf_info *from, struct lfs_info *to)
{
	const char *empty = "";
	const struct lf_fabric_attr *fabric = from->fabric_attr;
	const struct lf_domain_attr *domain = from->domain_attr;
	memset(to, 0, sizeof *to);
	if (fabric) {
		snprintf(to->provider, sizeof to->provider, "%s",
			 fabric->prov_name ? fabric->prov_name : empty);
		snprintf(to->fabric, sizeof to->fabric, "%s", fabric->name ? fabric->name : empty);
		to->provider_version = fabric->prov_version;
	}
	if (domain) {
		snprintf(to->domain, sizeof to->domain, "%s", domain->name ? domain->name : empty);
		to->memory_mode = domain->mr_mode;
		to->key_size = domain->mr_key_size;
	}
	if (from->ep_attr) {
		to->protocol = from->ep_attr->protocol;
		to->max_message_size = from->ep_attr->max_msg_size;
	}
	if (from->tx_attr)
		to->transmit_size = from->tx_attr->size;
	if (from->rx_attr)
		to->receive_size = from->rx_attr->size;
	to->address_format = from->addr_format;
	to->address_length = from->src_addrlen;
}

/* Every provider that the library has, usable here or not. Returns how many were written. */
int lfs_providers(struct lfs_info *out, int max)
{
	struct lf_info *list = NULL;
	int count = 0;
	int result = library.getinfo(LF_API_VERSION, NULL, NULL, LF_PROV_ATTR_ONLY, NULL, &list);
	if (result)
		return result;
	for (struct lf_info *i = list; i && count < max; i = i->next)
		describe(i, &out[count++]);
	library.freeinfo(list);
	return count;
}

/* What to look for; mirrored by `raw::Hints`. Strings may be null. */
struct lfs_hints {
	const char *provider, *domain, *node, *service;
};

static int get_info(const struct lfs_hints *want, struct lf_info **list)
{
	/* With a null argument fi_dupinfo allocates an empty structure. */
	struct lf_info *hints = library.dupinfo(NULL);
	int result = -ENOMEM;
	if (!hints)
		return result;
	if (want->provider && !(hints->fabric_attr->prov_name = strdup(want->provider)))
		goto out;
	if (want->domain && !(hints->domain_attr->name = strdup(want->domain)))
		goto out;
	hints->ep_attr->type = LF_EP_RDM;
	hints->caps = LF_MSG | LF_RMA;
	hints->mode = LF_CONTEXT | LF_CONTEXT2;
	hints->tx_attr->msg_order = LF_ORDER_SAS;
	hints->rx_attr->msg_order = LF_ORDER_SAS;
	hints->domain_attr->mr_mode = LF_MR_LOCAL | LF_MR_VIRT_ADDR | LF_MR_ALLOCATED |
				      LF_MR_PROV_KEY | LF_MR_ENDPOINT;
	hints->domain_attr->threading = LF_THREAD_DOMAIN;
	hints->domain_attr->control_progress = LF_PROGRESS_MANUAL;
	hints->domain_attr->data_progress = LF_PROGRESS_MANUAL;
	hints->domain_attr->resource_mgmt = LF_RM_ENABLED;
	/* FI_SOURCE makes node and service our own address rather than a peer's. */
	result = library.getinfo(LF_API_VERSION, want->node, want->service,
				 want->node || want->service ? LF_SOURCE : 0, hints, list);
out:
	library.freeinfo(hints);
	return result;
}

/* The providers that can make an endpoint as hinted. Returns how many were written. */
int lfs_usable(const struct lfs_hints *want, struct lfs_info *out, int max)
{
	struct lf_info *list = NULL;
	int count = 0, result = get_info(want, &list);
	if (result)
		return result;
	for (struct lf_info *i = list; i && count < max; i = i->next)
		describe(i, &out[count++]);
	library.freeinfo(list);
	return count;
}

struct lfs_endpoint {
	struct lf_info *info;
	struct lf_fabric *fabric;
	struct lf_domain *domain;
	struct lf_av *av;
	struct lf_cq *cq;
	struct lf_ep *ep;
};

static void close_fid(struct lf_fid *fid) { fid->ops->close(fid); }

/* Every memory registration must have been closed, and no operation may be outstanding. */
void lfs_close(struct lfs_endpoint *e)
{
	if (e->ep)
		close_fid(&e->ep->fid);
	if (e->cq)
		close_fid(&e->cq->fid);
	if (e->av)
		close_fid(&e->av->fid);
	if (e->domain)
		close_fid(&e->domain->fid);
	if (e->fabric)
		close_fid(&e->fabric->fid);
	if (e->info)
		library.freeinfo(e->info);
	free(e);
}

static int bind_fid(struct lf_ep *ep, struct lf_fid *to, uint64_t flags)
{
	return ep->fid.ops->bind(&ep->fid, to, flags);
}

static void lower(size_t *size, size_t to)
{
	if (to < *size)
		*size = to;
}

/* Opens an enabled endpoint on the first answer to the hints. `transmits` and `receives` are how many
 * operations may be under way: providers set memory aside for each. `step` names the call that failed. */
int lfs_open(const struct lfs_hints *want, size_t transmits, size_t receives,
	     struct lfs_endpoint **out, struct lfs_info *info, const char **step)
{
	struct lf_av_attr av = {0};
	struct lf_cq_attr cq = {0};
	int result;
	struct lfs_endpoint *e = calloc(1, sizeof *e);
	*step = "calloc";
	if (!e)
		return -ENOMEM;
	*step = "fi_getinfo";
	if ((result = get_info(want, &e->info)))
		goto fail;
	lower(&e->info->tx_attr->size, transmits);
	lower(&e->info->rx_attr->size, receives);
	*step = "fi_fabric";
	if ((result = library.fabric(e->info->fabric_attr, &e->fabric, NULL)))
		goto fail;
	*step = "fi_domain";
	if ((result = e->fabric->ops->domain(e->fabric, e->info, &e->domain, NULL)))
		goto fail;
	*step = "fi_av_open";
	av.type = e->info->domain_attr->av_type;
	if ((result = e->domain->ops->av_open(e->domain, &av, &e->av, NULL)))
		goto fail;
	*step = "fi_cq_open";
	cq.format = LF_CQ_FORMAT_TAGGED;
	cq.size = transmits + receives;
	cq.wait_obj = LF_WAIT_FD;
	if ((result = e->domain->ops->cq_open(e->domain, &cq, &e->cq, NULL)))
		goto fail;
	*step = "fi_endpoint";
	if ((result = e->domain->ops->endpoint(e->domain, e->info, &e->ep, NULL)))
		goto fail;
	*step = "fi_ep_bind";
	if ((result = bind_fid(e->ep, &e->av->fid, 0)) ||
	    (result = bind_fid(e->ep, &e->cq->fid, LF_SEND | LF_RECV)))
		goto fail;
	*step = "fi_enable";
	if ((result = e->ep->fid.ops->control(&e->ep->fid, LF_CONTROL_ENABLE, NULL)))
		goto fail;
	describe(e->info, info);
	*out = e;
	return 0;
fail:
	lfs_close(e);
	return result;
}

/* The endpoint's own address; `length` holds the room, then what was needed. */
int lfs_address(struct lfs_endpoint *e, void *address, size_t *length)
{
	return e->ep->cm->getname(&e->ep->fid, address, length);
}

/* `address` must be as long as the endpoint's own. */
void lfs_address_text(struct lfs_endpoint *e, const void *address, char *text, size_t size)
{
	text[0] = 0;
	e->av->ops->straddr(e->av, address, text, &size);
}

/* `address` must be as long as the endpoint's own. */
int lfs_insert(struct lfs_endpoint *e, const void *address, uint64_t *peer)
{
	int result = e->av->ops->insert(e->av, address, 1, peer, 0, NULL);
	if (result < 0)
		return result;
	return result == 1 && *peer != LF_ADDR_UNSPEC ? 0 : -EINVAL;
}

int lfs_remove(struct lfs_endpoint *e, uint64_t peer)
{
	return e->av->ops->remove(e->av, &peer, 1, 0);
}

/* Whether local buffers must be registered too. */
int lfs_needs_local_registration(struct lfs_endpoint *e)
{
	return (e->info->domain_attr->mr_mode & LF_MR_LOCAL) != 0;
}

/* Registers memory. `remote` lets peers that know the key read it; otherwise it serves our own
 * operations, as target of receives and reads and source of sends. `address` is what a peer
 * passes to read from the start. */
int lfs_register(struct lfs_endpoint *e, void *buffer, size_t length, int remote, uint64_t key,
		 struct lf_mr **out, void **descriptor, uint64_t *used_key, uint64_t *address)
{
	int mode = e->info->domain_attr->mr_mode, result;
	uint64_t access = remote ? LF_REMOTE_READ : LF_SEND | LF_RECV | LF_READ;
	struct lf_mr *mr;
	result = e->domain->mr->reg(&e->domain->fid, buffer, length, access, 0,
				    mode & LF_MR_PROV_KEY ? 0 : key, 0, &mr, NULL);
	if (result)
		return result;
	if (mode & LF_MR_ENDPOINT) {
		if ((result = mr->fid.ops->bind(&mr->fid, &e->ep->fid, 0)) ||
		    (result = mr->fid.ops->control(&mr->fid, LF_CONTROL_ENABLE, NULL))) {
			close_fid(&mr->fid);
			return result;
		}
	}
	*out = mr;
	*descriptor = mr->descriptor;
	*used_key = mr->key;
	*address = mode & LF_MR_VIRT_ADDR ? (uint64_t)(uintptr_t)buffer : 0;
	return 0;
}

int lfs_deregister(struct lf_mr *mr) { return mr->fid.ops->close(&mr->fid); }

ssize_t lfs_send(struct lfs_endpoint *e, uint64_t to, const void *buffer, size_t length,
		 void *descriptor, void *context)
{
	return e->ep->msg->send(e->ep, buffer, length, descriptor, to, context);
}

ssize_t lfs_receive(struct lfs_endpoint *e, void *buffer, size_t length, void *descriptor,
		    void *context)
{
	return e->ep->msg->recv(e->ep, buffer, length, descriptor, LF_ADDR_UNSPEC, context);
}

ssize_t lfs_read(struct lfs_endpoint *e, uint64_t from, void *buffer, size_t length,
		 void *descriptor, uint64_t address, uint64_t key, void *context)
{
	return e->ep->rma->read(e->ep, buffer, length, descriptor, from, address, key, context);
}

ssize_t lfs_cancel(struct lfs_endpoint *e, void *context)
{
	return e->ep->ops->cancel(&e->ep->fid, context);
}

/* A completion; mirrored by `raw::Completion`. `error` is 0 or a positive errno. */
struct lfs_completion {
	void *context;
	size_t length;
	int error, provider_error;
};

/* Takes up to `max` completions (at most 16); 0 when there is none. A failed operation comes
 * alone. This also drives the provider's progress. */
ssize_t lfs_completions(struct lfs_endpoint *e, struct lfs_completion *out, size_t max)
{
	struct lf_cq_entry entries[16];
	ssize_t count = e->cq->ops->read(e->cq, entries, max < 16 ? max : 16);
	if (count == -EAGAIN)
		return 0;
	if (count == -LF_EAVAIL) {
		struct lf_cq_error error = {0};
		count = e->cq->ops->readerr(e->cq, &error, 0);
		if (count <= 0)
			return count == -EAGAIN ? 0 : count;
		out[0].context = error.op_context;
		out[0].length = 0;
		out[0].error = error.err ? error.err : EIO;
		out[0].provider_error = error.prov_errno;
		return 1;
	}
	for (ssize_t i = 0; i < count; i++) {
		out[i].context = entries[i].op_context;
		out[i].length = entries[i].len;
		out[i].error = 0;
		out[i].provider_error = 0;
	}
	return count;
}

/* A descriptor that becomes readable when the queue may hold something, or a negative errno. */
int lfs_wait_descriptor(struct lfs_endpoint *e)
{
	int descriptor = -1;
	int result = e->cq->fid.ops->control(&e->cq->fid, LF_CONTROL_GETWAIT, &descriptor);
	return result ? result : descriptor;
}

/* 0: it is safe to sleep on the descriptor; -EAGAIN: drain the queue first. */
int lfs_may_sleep(struct lfs_endpoint *e)
{
	struct lf_fid *fid = &e->cq->fid;
	return e->fabric->ops->trywait(e->fabric, &fid, 1);
}
