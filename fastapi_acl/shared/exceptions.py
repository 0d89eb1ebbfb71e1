"""Erreurs de la bibliothèque : des familles, chacune avec un code stable, aucune ne connaît HTTP.

ACLException
├── ConfigurationError            ce que l'exploitant doit corriger avant de démarrer
├── AuthenticationError           qui êtes-vous ?
│   ├── AuthenticationRequiredError
│   ├── InvalidCredentialsError
│   ├── InvalidTokenError
│   └── TokenReusedError
├── AuthorizationError            vous n'avez pas le droit
│   ├── PermissionDeniedError
│   ├── EscalationRefusedError
│   ├── UserNotActiveError
│   └── ValueTooLongError
├── NotFoundError
│   ├── UserNotFoundError
│   ├── RoleNotFoundError
│   ├── RuleNotFoundError
│   └── DecisionUnknownError
├── ConflictError
│   ├── UserAlreadyExistsError
│   ├── RuleAlreadyExistsError
│   └── LastAdministratorError
├── InvalidInputError             la demande elle-même est fautive
│   ├── InvalidRequestError
│   ├── InvalidUsernameError
│   ├── InvalidEmailError
│   ├── WeakPasswordError
│   ├── InvalidRuleError
│   ├── InvalidImportError
│   └── IdempotencyKeyReusedError
├── BadRequestError               un en-tête ne se lit pas
│   └── InvalidMinRevisionError
├── GoneError
│   └── RevisionCompactedError
├── PayloadTooLargeError
│   └── ChangeTooLargeError
├── UnavailableError              réessayez : rien n'a été fait
│   ├── DatabaseUnavailableError
│   │   └── TransactionConflictError
│   ├── DatabaseRefusedError      réessayer n'y changera rien
│   ├── PolicyUnavailableError
│   ├── RevisionNotReachedError
│   ├── StoredDataError
│   │   └── PolicyUnreadableError
│   ├── DecisionFailedError
│   ├── HashingSaturatedError
│   └── ManagerMissingError
├── WrongLoopError                faute de programmation dans l'usage des boucles d'événements
└── TransactionError              faute de programmation dans l'usage des transactions
    ├── TransactionNotOwnedError
    ├── TransactionNotOrderedError
    ├── TransactionNestedError
    └── TransactionCondemnedError
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class ACLException(Exception):  # noqa: N818 - le nom que porte la racine dans l'interface publique promise
    """Racine de toutes les erreurs de la bibliothèque.

    Attributes:
        code: identifiant anglais et stable, que les clients peuvent comparer.
        detail: phrase française destinée à une personne, sans secret.
        evidence: faits sérialisables en JSON qui aident à corriger ; jamais un secret.
    """

    code: ClassVar[str] = "acl_error"
    default_detail: ClassVar[str] = "Erreur du contrôle d’accès."

    def __init__(self, detail: str | None = None, **evidence: object) -> None:
        """Retient la phrase et les preuves.

        Args:
            detail: phrase à montrer ; celle de la classe par défaut.
            **evidence: faits à joindre à la réponse.
        """
        self.detail = detail or self.default_detail
        self.evidence = evidence
        super().__init__(self.detail)


class ConfigurationError(ACLException):
    """La configuration empêche de démarrer ; le message dit quoi régler."""

    code = "configuration_error"
    default_detail = "La configuration est incorrecte."


class AuthenticationError(ACLException):
    """L'appelant n'est pas identifié."""

    code = "authentication_failed"
    default_detail = "L’identité n’a pas pu être vérifiée."


class AuthenticationRequiredError(AuthenticationError):
    """Aucun jeton n'accompagne la demande."""

    code = "authentication_required"
    default_detail = "Un jeton d’accès est nécessaire : connectez-vous, puis envoyez « Authorization: Bearer … »."


class InvalidCredentialsError(AuthenticationError):
    """Nom inconnu ou mot de passe faux, sans dire lequel."""

    code = "invalid_credentials"
    default_detail = "Compte ou mot de passe incorrect."


class InvalidTokenError(AuthenticationError):
    """Le jeton est mal formé, périmé, révoqué ou n'est pas de ce service."""

    code = "invalid_token"
    default_detail = "Le jeton n’est pas valide ou n’est plus valide."


class TokenReusedError(AuthenticationError):
    """Un refresh token déjà dépensé est revenu : la session est révoquée (RFC 9700, 4.14)."""

    code = "token_reused"
    default_detail = "Ce refresh token a déjà servi ; la session est fermée, reconnectez-vous."


class AuthorizationError(ACLException):
    """L'appelant est connu mais n'a pas le droit."""

    code = "forbidden"
    default_detail = "Cette action n’est pas permise."


class PermissionDeniedError(AuthorizationError):
    """La politique refuse."""

    code = "permission_denied"
    default_detail = "La politique ne vous accorde pas cette permission."


class EscalationRefusedError(AuthorizationError):
    """Nul n'accorde ce qu'il ne détient pas."""

    code = "escalation_refused"
    default_detail = "Vous ne pouvez pas accorder une permission que vous ne détenez pas."


class UserNotActiveError(AuthorizationError):
    """Le compte est désactivé (dit seulement après un mot de passe juste)."""

    code = "user_not_active"
    default_detail = "Ce compte est désactivé."


class ValueTooLongError(AuthorizationError):
    """Un sujet, un domaine, une ressource ou une action dépasse la longueur que le moteur compare."""

    code = "value_too_long"
    default_detail = "Une valeur de la demande est trop longue pour être comparée à une règle."


class NotFoundError(ACLException):
    """L'objet demandé n'existe pas."""

    code = "not_found"
    default_detail = "Introuvable."


class UserNotFoundError(NotFoundError):
    """Aucun compte ne porte cet identifiant."""

    code = "user_not_found"
    default_detail = "Aucun compte ne porte cet identifiant."


class RoleNotFoundError(NotFoundError):
    """Un lien donnerait un rôle que rien ne définit : qui le tient d'avance aurait ce qui lui sera donné plus tard."""

    code = "role_not_found"
    default_detail = (
        "Aucune règle « p » ne nomme ce rôle, et le donner ne donnerait rien : ajoutez d’abord, ou dans la même "
        "demande, ce qu’il permet (par exemple « p, role:lecteur, document, read, allow »). Rien n’a été changé."
    )


class RuleNotFoundError(NotFoundError):
    """Une règle à retirer n'existe pas."""

    code = "rule_not_found"
    default_detail = "Une des règles n’existe pas ; rien n’a été changé."


class DecisionUnknownError(NotFoundError):
    """Ce processus ne se souvient pas d'un refus : il n'est pas de lui, est trop ancien, ou était trop long."""

    code = "decision_unknown"
    default_detail = (
        "Ce processus ne se souvient pas de ce refus : cherchez son numéro (« decision_id= ») dans le journal du "
        "processus que nomme le début du numéro, puis demandez avec le sujet, la ressource et l’action de la ligne."
    )


class ConflictError(ACLException):
    """L'état présent s'oppose à la demande."""

    code = "conflict"
    default_detail = "L’état actuel ne permet pas cette opération."


class UserAlreadyExistsError(ConflictError):
    """Le nom ou l'adresse est déjà pris, sans dire lequel."""

    code = "user_already_exists"
    default_detail = "Ce nom d’utilisateur ou cette adresse est déjà pris."


class RuleAlreadyExistsError(ConflictError):
    """Une règle à ajouter existe déjà."""

    code = "rule_already_exists"
    default_detail = "Une des règles existe déjà ; rien n’a été changé."


class LastAdministratorError(ConflictError):
    """Plus aucun compte actif ne pourrait modifier les règles."""

    code = "last_administrator"
    default_detail = "Ce changement retirerait le dernier administrateur ; nommez-en un autre d’abord."


class InvalidInputError(ACLException):
    """La demande est fautive ; la renvoyer telle quelle n'y changera rien."""

    code = "invalid_input"
    default_detail = "La demande est incorrecte."


class InvalidRequestError(InvalidInputError):
    """Le corps, le chemin ou les paramètres n'ont pas la forme attendue."""

    code = "invalid_request"
    default_detail = "La demande n’a pas la forme attendue ; voyez « errors »."


class InvalidUsernameError(InvalidInputError):
    """Le nom d'utilisateur contient un caractère refusé ou n'a pas une longueur admise."""

    code = "invalid_username"
    default_detail = "Ce nom d’utilisateur n’est pas admis."


class InvalidEmailError(InvalidInputError):
    """L'adresse n'a pas la forme d'une adresse électronique."""

    code = "invalid_email"
    default_detail = "Cette adresse électronique n’est pas admise."


class WeakPasswordError(InvalidInputError):
    """Le mot de passe ne suit pas les règles (NIST SP 800-63B-4)."""

    code = "weak_password"
    default_detail = "Ce mot de passe n’est pas admis."


class InvalidRuleError(InvalidInputError):
    """La règle n'a pas la forme que le modèle demande."""

    code = "invalid_rule"
    default_detail = "Une des règles n’est pas admise ; rien n’a été changé."


class InvalidImportError(InvalidInputError):
    """Une ligne d'un fichier de règles n'est pas admise ; la phrase donne son numéro."""

    code = "invalid_import"
    default_detail = "Une ligne du fichier n’est pas admise ; rien n’a été changé."


class IdempotencyKeyReusedError(InvalidInputError):
    """La clé d'idempotence a déjà servi à une autre demande."""

    code = "idempotency_key_reused"
    default_detail = "Cette clé « Idempotency-Key » a déjà servi à une autre demande : prenez-en une neuve."


class BadRequestError(ACLException):
    """Un en-tête de la demande n'a pas la forme attendue."""

    code = "bad_request"
    default_detail = "Un en-tête de la demande n’a pas la forme attendue."


class InvalidMinRevisionError(BadRequestError):
    """`X-ACL-Min-Revision` n'est pas un nombre de 1 à 15 chiffres."""

    code = "invalid_min_revision"
    default_detail = "X-ACL-Min-Revision est une révision : de 1 à 15 chiffres."


class GoneError(ACLException):
    """Ce qui est demandé a existé et n'existe plus."""

    code = "gone"
    default_detail = "Ce qui est demandé n’existe plus."


class RevisionCompactedError(GoneError):
    """La révision demandée est antérieure à la dernière compaction du journal."""

    code = "revision_compacted"
    default_detail = "Le journal a été compacté au-delà de cette révision : elle ne peut plus être rebâtie."


class PayloadTooLargeError(ACLException):
    """Le corps de la demande dépasse la taille admise."""

    code = "payload_too_large"
    default_detail = "Le corps de la demande est trop grand."


class ChangeTooLargeError(PayloadTooLargeError):
    """Un changement tient dans une seule entrée du journal, et celle-ci dépasse ce que la base admet."""

    code = "change_too_large"
    default_detail = "Ce changement est trop grand pour une seule écriture ; rien n’a été changé. Faites-le en parties."


class UnavailableError(ACLException):
    """Le service ne peut pas répondre pour l'instant ; rien n'a été fait."""

    code = "unavailable"
    default_detail = "Le service n’est pas disponible pour l’instant ; réessayez."


class DatabaseUnavailableError(UnavailableError):
    """La base ne répond pas."""

    code = "database_unavailable"
    default_detail = "La base de données ne répond pas ; réessayez dans un instant."


class TransactionConflictError(DatabaseUnavailableError):
    """La base a annulé la transaction, qu'une autre a croisée ; la refaire peut réussir."""


class DatabaseRefusedError(UnavailableError):
    """La base répond, et refuse pour de bon : un droit manque, elle est en lecture seule, son disque est plein."""

    code = "database_refused"
    default_detail = "La base de données refuse cette opération ; l’exploitant doit y remédier."


class PolicyUnavailableError(UnavailableError):
    """La politique n'est pas chargée, ou plus assez fraîche : dans le doute, refuser."""

    code = "policy_unavailable"
    default_detail = "La politique n’est pas chargée ; réessayez dans un instant."


class RevisionNotReachedError(UnavailableError):
    """Ce processus n'a pas encore appliqué la révision que la requête exige ; la même, renvoyée, peut aboutir."""

    code = "revision_not_reached"
    default_detail = "La révision demandée n’est pas encore appliquée ici ; réessayez dans un instant."


class StoredDataError(UnavailableError):
    """La base garde ce que nous n'y avons pas mis, et qui ne se lit pas.

    Attributes:
        table: la table, ou la collection, où elle le garde ; la ligne, elle, n'est que dans le journal d'événements.
    """

    code = "stored_data_unreadable"
    default_detail = "La base garde une valeur qui ne se lit pas ; l’exploitant doit y remédier."

    def __init__(self, detail: str | None = None, table: str = "casbin_rule") -> None:
        """Retient la phrase, et où cela se trouve.

        Args:
            detail: phrase à montrer ; celle de la classe par défaut.
            table: la table, ou la collection.
        """
        super().__init__(detail)
        self.table = table


class PolicyUnreadableError(StoredDataError):
    """La base contient des règles qu'on ne sait pas lire, et qui pourraient refuser."""

    code = "policy_unreadable"
    default_detail = "La politique écrite dans la base est illisible ; l’exploitant doit la corriger."


class DecisionFailedError(UnavailableError):
    """L'évaluation de la politique a échoué : ce n'est jamais un accord.

    Attributes:
        reason: la cause, pour le journal seul : des noms et des types, jamais une valeur de la demande.
        rule: la règle que l'on évaluait, type en tête, pour le journal seul ; vide si aucune.
    """

    code = "decision_failed"
    default_detail = "La décision n’a pas pu être prise ; l’accès est refusé."

    def __init__(self, detail: str | None = None, *, reason: str = "", rule: Sequence[str] = ()) -> None:
        """Retient la phrase, et ce que le journal dira.

        Args:
            detail: phrase à montrer ; celle de la classe par défaut.
            reason: la cause.
            rule: la règle que l'on évaluait, type en tête.
        """
        super().__init__(detail)
        self.reason = reason
        self.rule = tuple(rule)


class HashingSaturatedError(UnavailableError):
    """Trop de mots de passe attendent d'être vérifiés."""

    code = "too_busy"
    default_detail = "Trop de connexions sont en cours ; réessayez dans un instant."


class ManagerMissingError(UnavailableError):
    """`require` ou `current_user` s'exécute dans une application sans ACLManager."""

    code = "acl_not_installed"
    default_detail = (
        "Aucun ACLManager n’accompagne cette application : ajoutez « ACLManager(config, app=app) » "
        "à l’application qui reçoit les requêtes, avant son démarrage."
    )


class WrongLoopError(ACLException):
    """Une boucle d'événements veut se servir des connexions d'une autre, qui tourne encore."""

    code = "wrong_event_loop"
    default_detail = (
        "Les connexions appartiennent à la boucle d’événements qui sert l’application : depuis un fil d’exécution, une "
        "route « def » par exemple, appelez « anyio.from_thread.run(…) » et non « asyncio.run(…) »."
    )


class TransactionError(ACLException):
    """La transaction ambiante est mal employée : une faute du programme, pas de l'appelant."""

    code = "transaction_error"
    default_detail = "La transaction ambiante est mal employée."


class TransactionNotOwnedError(TransactionError):
    """Une autre tâche que celle qui a ouvert la transaction veut s'en servir."""

    code = "transaction_not_owned"
    default_detail = (
        "Cette tâche n’a pas ouvert la transaction ambiante : n’employez ni gather, ni wait_for, ni create_task "
        "entre son début et sa validation."
    )


class TransactionNotOrderedError(TransactionError):
    """On journalise dans une transaction qui n'a pas été ouverte pour cela."""

    code = "transaction_not_ordered"
    default_detail = "Pour journaliser, ouvrez la transaction extérieure avec « transaction(log=True) »."


class TransactionNestedError(TransactionError):
    """On demande, dans une transaction, ce qui ne peut être qu'une transaction à soi seul."""

    code = "transaction_nested"
    default_detail = "Relire, importer, revenir en arrière ou compacter ne se fait pas dans une transaction ouverte."


class TransactionCondemnedError(TransactionError):
    """Une écriture s'est arrêtée en chemin dans la transaction, et son erreur a été tue."""

    code = "transaction_condemned"
    default_detail = "Une écriture s’est arrêtée en chemin dans cette transaction : rien n’a été validé."
